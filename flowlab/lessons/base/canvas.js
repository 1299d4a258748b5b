// JupyterLab takes arrow keys for moving between cells before a drop-down list sees them. The window hears a key
// before Lab does: keep it from Lab there, and the browser still moves the list.
if (!window.flowlabKeys) {
  window.flowlabKeys = true;
  window.addEventListener("keydown", (e) => {
    if (e.target.matches?.(".flowlab-explorer select")) e.stopPropagation();
  }, true);
}
// What Recorder has written down, step by step, so many times as large.
function draw(context, { steps, numbers }, images, scale) {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  const values = new Float32Array(bytes.slice().buffer);
  let at = 0, image = 0;
  const outline = (count) => {
    const path = new Path2D();
    for (const end = at + 3 * count; at < end; at += 3) {
      if (values[at + 2] === 1) path.moveTo(values[at], values[at + 1]);
      else if (values[at + 2] === 2) path.lineTo(values[at], values[at + 1]);
      else if (values[at + 2] === 79) path.closePath();
    }
    return path;
  };
  for (const step of steps) {
    context.save();
    context.setTransform(scale, 0, 0, scale, 0, 0);
    if (step.clip) { context.beginPath(); context.rect(...step.clip); context.clip(); }
    if (step.kind === "image") {
      context.imageSmoothingEnabled = false;
      context.transform(...step.matrix);
      context.drawImage(images[image++], 0, 0);
    } else {
      const path = outline(step.count);
      if (step.face) context.fillStyle = step.face;
      if (step.edge) {
        Object.assign(context, { strokeStyle: step.edge, lineWidth: step.width, miterLimit: 10 });
        Object.assign(context, { lineCap: step.cap, lineJoin: step.join, lineDashOffset: step.shift ?? 0 });
        context.setLineDash(step.dash ?? []);
      }
      const ink = () => {
        if (step.face || step.faces) context.fill(path);
        if (step.edge) context.stroke(path);
      };
      if (step.kind === "path") ink();
      for (let i = 0; i < (step.places ?? 0); i++, at += 2) {
        if (step.faces) context.fillStyle = step.faces[i];
        context.setTransform(scale, 0, 0, scale, scale * values[at], scale * values[at + 1]);
        ink();
      }
    }
    context.restore();
  }
}
const decode = (png) => createImageBitmap(new Blob([png], { type: "image/png" }));
function unpack(pixels, [width, height]) {
  const bitmap = new OffscreenCanvas(width, height), bytes = new Uint8ClampedArray(width * height * 4);
  bytes.set(new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.byteLength));
  bitmap.getContext("2d").putImageData(new ImageData(bytes, width), 0, 0);
  return bitmap;
}
function bitmaps({ steps, images }) {
  const sizes = steps.filter((step) => step.kind === "image").map((step) => step.size);
  const made = images.map((image, i) => sizes[i] ? unpack(image, sizes[i]) : decode(image));
  return sizes.every(Boolean) ? made : Promise.all(made);
}
function render({ model, el }) {
  const image = document.createElement("canvas"), context = image.getContext("2d");
  const [width, height] = model.get("size");
  image.className = "flowlab-picture";
  image.setAttribute("role", "img");
  // As wide as its column, and low enough that the controls stay in sight.
  image.style.width = `max(${width}px, ${(55 * width / height).toFixed(1)}vh)`;
  image.style.aspectRatio = `${width} / ${height}`;
  image.style.touchAction = model.get("draggable") ? "none" : "auto";
  image.style.cursor = model.get("draggable") ? "crosshair" : "default";
  image.dataset.size = JSON.stringify([width, height]);
  let waiting = false, last = null, count = 0;
  let still = null, sheet = null, scale = 0, drawing = false, stale = false, frames = 0;
  const paint = (scene, images) => {
    if (image.width !== sheet.width || image.height !== sheet.height) {
      image.width = sheet.width; image.height = sheet.height;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(sheet, 0, 0);
    draw(context, scene, images, scale);
    image.dataset.frames = ++frames;
    waiting = false;
    if (last) { const event = last; last = null; send(event); }
  };
  // As many dots as the screen has, so that lines and letters are sharp.
  const wanted = () => Math.min(4, Math.max(1, (image.clientWidth || width) * devicePixelRatio / width));
  // Decoding an image takes a moment. What comes in the meantime waits, and only the newest of it is drawn.
  const show = async () => {
    stale = true;
    if (drawing) return;
    drawing = true;
    try {
      while (stale) {
        stale = false;
        const scene = model.get("scene"), background = model.get("background");
        if (background !== still || wanted() !== scale) {
          scale = wanted();
          sheet = new OffscreenCanvas(Math.round(width * scale), Math.round(height * scale));
          let images = bitmaps(background);
          if (images instanceof Promise) images = await images;
          draw(sheet.getContext("2d"), background, images, scale);
          still = background;
        }
        let images = bitmaps(scene);
        if (images instanceof Promise) images = await images;
        paint(scene, images);
        images.forEach((bitmap) => bitmap.close?.());
      }
    } finally {
      drawing = false;
    }
  };
  const resized = new ResizeObserver(() => { if (sheet && wanted() !== scale) show(); });
  resized.observe(image);
  const numbers = document.createElement("div");
  numbers.className = "flowlab-readout";
  const tell = () => { numbers.innerHTML = model.get("readout"); };
  const describe = () => {
    image.setAttribute("aria-label", model.get("alt"));
    image.dataset.regions = JSON.stringify(model.get("regions"));
  };
  const send = (event) => {
    // One move under way at a time: a slow kernel skips moves, it does not queue them.
    if (waiting && event.kind === "move") { last = event; return; }
    waiting = true;
    setTimeout(() => { waiting = false; }, 250);
    model.send({ ...event, count: ++count });  // each by itself: changes of a trait would be merged on the way
  };
  const where = (kind, e) => {
    const box = image.getBoundingClientRect();
    return { kind, x: (e.clientX - box.left) / box.width, y: (e.clientY - box.top) / box.height };
  };
  if (model.get("draggable")) {
    image.addEventListener("pointerdown", (e) => { image.setPointerCapture(e.pointerId); send(where("down", e)); });
    image.addEventListener("pointermove", (e) => { if (e.buttons) send(where("move", e)); });
    image.addEventListener("pointerup", (e) => { last = null; send(where("up", e)); });
  }
  // A screen reader hears what the picture shows once the hand rests, and not at every step of a slider.
  const spoken = document.createElement("div");
  spoken.setAttribute("role", "status");
  spoken.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)";
  let resting = null;
  const speak = () => {
    clearTimeout(resting);
    resting = setTimeout(() => { spoken.textContent = model.get("alt"); }, 700);
  };
  // ipywidgets writes a slider's name beside it and does not tie the two together: do so, also for sliders to come.
  const name = () => {
    for (const slider of el.closest(".flowlab-explorer")?.querySelectorAll(".widget-slider") ?? []) {
      const label = slider.querySelector(".widget-label")?.textContent;
      const handle = slider.querySelector(".noUi-handle"), readout = slider.querySelector(".widget-readout");
      if (!label || !handle) continue;
      handle.setAttribute("aria-label", label);
      if (!readout) continue;
      handle.setAttribute("aria-valuetext", readout.textContent);
      readout.setAttribute("role", "textbox");
      readout.setAttribute("aria-label", `${label}, to type`);
    }
  };
  const watch = new MutationObserver(name);
  const attached = setInterval(() => {
    const explorer = el.closest(".flowlab-explorer");
    if (!explorer) return;
    clearInterval(attached);
    watch.observe(explorer, { childList: true, subtree: true, characterData: true });
    name();
  }, 100);
  model.on("change:scene", show);
  model.on("change:readout", tell);
  model.on("change:alt", describe);
  model.on("change:alt", speak);
  show(); tell(); describe();
  el.append(image, numbers, spoken);
  return () => {
    clearInterval(attached); clearTimeout(resting); watch.disconnect(); resized.disconnect();
    model.off("change:scene", show); model.off("change:readout", tell);
    model.off("change:alt", describe); model.off("change:alt", speak);
  };
}
export default { render };
