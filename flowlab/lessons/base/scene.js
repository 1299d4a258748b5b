// What a Recorder has written down, drawn on a canvas: the scene of an explorer, and what lies between two of them.
// Nothing here knows where the scenes come from.

// What Recorder has written down, step by step, so many times as large.
function draw(context, { steps, numbers }, images, scale) {
  const values = floats(numbers);
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

// --- on the way from one picture to the next -------------------------------------------------------------------------
// A picture is { scene, images }: a scene, and its images as bitmaps.
const floats = (numbers) => numbers instanceof Float32Array ? numbers
  : new Float32Array(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength).slice().buffer);
const mixed = (a, b, share) => a + (b - a) * share;
const channels = (color) => [1, 3, 5, 7].map((i) => parseInt(color.slice(i, i + 2) || "ff", 16));
function tint(a, b, share) {
  if (a === b) return a;
  const to = channels(b);
  const on = channels(a).map((value, i) => Math.round(mixed(value, to[i], share)));
  return "#" + on.map((value) => value.toString(16).padStart(2, "0")).join("");
}
function blend(a, b, share) {
  const sheet = new OffscreenCanvas(a.width, a.height), context = sheet.getContext("2d");
  context.globalCompositeOperation = "lighter";
  context.globalAlpha = 1 - share; context.drawImage(a, 0, 0);
  context.globalAlpha = share; context.drawImage(b, 0, 0);
  return sheet;
}
// The steps of a picture, each with its own numbers and its own image.
function pieces({ scene: { steps, numbers }, images }) {
  const values = floats(numbers);
  let at = 0, image = 0;
  return steps.map((step) => {
    const own = values.subarray(at, at += 3 * (step.count ?? 0) + 2 * (step.places ?? 0));
    return { step, numbers: own, image: step.kind === "image" ? images[image++] : null };
  });
}
function together(pieces) {
  const numbers = new Float32Array(pieces.reduce((sum, piece) => sum + piece.numbers.length, 0));
  let at = 0;
  for (const piece of pieces) { numbers.set(piece.numbers, at); at += piece.numbers.length; }
  const images = pieces.map((piece) => piece.image).filter(Boolean);
  return { scene: { steps: pieces.map((piece) => piece.step), numbers }, images };
}
// Whether two steps draw the same with other numbers: the pen goes up and down at the same corners.
function alike(a, b) {
  for (const key of ["kind", "count", "places"]) if (a.step[key] !== b.step[key]) return false;
  for (const key of ["face", "faces", "edge"]) if (!a.step[key] !== !b.step[key]) return false;
  if (a.image && (a.image.width !== b.image.width || a.image.height !== b.image.height)) return false;
  for (let i = 2; i < 3 * (a.step.count ?? 0); i += 3) if (a.numbers[i] !== b.numbers[i]) return false;
  return true;
}
function partway(a, b, share) {
  const step = { ...b.step };
  for (const key of ["face", "edge"]) if (step[key]) step[key] = tint(a.step[key], step[key], share);
  if (step.faces) step.faces = step.faces.map((face, i) => tint(a.step.faces[i], face, share));
  if (step.edge) step.width = mixed(a.step.width, step.width, share);
  if (step.matrix) step.matrix = step.matrix.map((value, i) => mixed(a.step.matrix[i], value, share));
  const numbers = b.numbers.map((value, i) => mixed(a.numbers[i], value, share));
  return { step, numbers, image: b.image && blend(a.image, b.image, share) };
}
// The pictures between two of them, by the share of the way that is done. What has the same structure in both moves in
// straight lines, from place to place, from color to color and from image to image; all else switches in the middle.
function way(from, to) {
  const [before, after] = [from, to].map(pieces);
  if (before.length !== after.length) return (share) => share < 0.5 ? from : to;
  const moves = before.map((piece, i) => alike(piece, after[i]));
  const between = (share) => (piece, i) => moves[i] ? partway(piece, after[i], share) : share < 0.5 ? piece : after[i];
  return (share) => together(before.map(between(share)));
}
