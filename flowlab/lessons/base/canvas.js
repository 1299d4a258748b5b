// JupyterLab takes arrow keys for moving between cells before a drop-down list sees them. The window hears a key
// before Lab does: keep it from Lab there, and the browser still moves the list.
if (!window.flowlabKeys) {
  window.flowlabKeys = true;
  window.addEventListener("keydown", (e) => {
    if (e.target.matches?.(".flowlab-explorer select")) e.stopPropagation();
  }, true);
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
  let now = null, newest = null, next = null;  // the picture that is seen, the scene it goes to, the frame to come
  let words = "";  // the numbers of the picture it goes to
  const paint = ({ scene, images }) => {
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
  const arrive = (picture) => {
    cancelAnimationFrame(next);
    next = null;
    for (const bitmap of now?.images ?? []) if (!picture.images.includes(bitmap)) bitmap.close?.();
    paint(now = picture);
    numbers.innerHTML = words;
  };
  // Go to a picture in so many milliseconds, from whatever is seen now, which has mostly come to where it went.
  const glide = (picture, milliseconds) => {
    cancelAnimationFrame(next);
    const start = performance.now(), between = way(now, picture);
    const tick = (time) => {
      const share = Math.max(0, (time - start) / milliseconds);
      if (share >= 1) { arrive(picture); return; }
      paint(now = between(share));
      next = requestAnimationFrame(tick);
    };
    next = requestAnimationFrame(tick);
  };
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
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
        const scene = model.get("scene"), background = model.get("background"), readout = model.get("readout");
        const milliseconds = calm.matches ? 0 : model.get("glide");
        if (calm.matches && model.get("partway") && now) continue;
        if (background !== still || wanted() !== scale) {
          scale = wanted();
          sheet = new OffscreenCanvas(Math.round(width * scale), Math.round(height * scale));
          let images = bitmaps(background);
          if (images instanceof Promise) images = await images;
          draw(sheet.getContext("2d"), background, images, scale);
          still = background;
        }
        if (scene === newest) {  // the room for it has changed, and nothing else
          if (next === null) paint(now);
          continue;
        }
        let images = bitmaps(scene);
        if (images instanceof Promise) images = await images;
        newest = scene;
        if (words) numbers.innerHTML = words;
        words = readout;
        if (milliseconds && now) glide({ scene, images }, milliseconds);
        else arrive({ scene, images });
      }
    } finally {
      drawing = false;
    }
  };
  const resized = new ResizeObserver(() => { if (sheet && wanted() !== scale) show(); });
  resized.observe(image);
  const numbers = document.createElement("div");
  numbers.className = "flowlab-readout";
  const tell = () => { if (!model.get("glide") && next === null) numbers.innerHTML = model.get("readout"); };  // else on arrival
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
  // While a picture is played: Space on it pauses, a point and a comma step. Lab would take these keys for itself.
  const keys = { " ": 0, ".": 1, ArrowRight: 1, ",": -1, ArrowLeft: -1 };
  const key = (e) => {
    const button = e.target.closest?.(".flowlab-play");
    const mine = e.target === image ? model.get("plays") : button && el.closest(".flowlab-explorer")?.contains(button);
    if (!mine || !(e.key in keys) || e.ctrlKey || e.metaKey || e.altKey) return;
    e.stopPropagation();
    if (button && e.key === " ") return;  // the browser presses it
    e.preventDefault();
    const which = button ? [...button.classList].find((name) => name.startsWith("flowlab-play-")) : "";
    model.send({ kind: "key", step: keys[e.key], which: which.slice("flowlab-play-".length), count: ++count });
  };
  window.addEventListener("keydown", key, true);
  const playable = () => {
    if (!model.get("plays")) return;
    image.tabIndex = 0;
    image.setAttribute("aria-keyshortcuts", "Space . ,");
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
  model.on("change:glide", tell);
  model.on("change:plays", playable);
  model.on("change:alt", describe);
  model.on("change:alt", speak);
  show(); tell(); describe(); playable();
  el.append(image, numbers, spoken);
  return () => {
    clearInterval(attached); clearTimeout(resting); watch.disconnect(); resized.disconnect();
    cancelAnimationFrame(next); window.removeEventListener("keydown", key, true);
    model.off("change:scene", show); model.off("change:readout", tell);
    model.off("change:glide", tell); model.off("change:plays", playable);
    model.off("change:alt", describe); model.off("change:alt", speak);
  };
}
export default { render };
