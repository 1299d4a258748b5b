// Explorers without a kernel. A tape holds what flowlab/publish/tape.py has recorded: scenes for the settings of the
// controls. What is before this in the file draws them; it is the code of the notebook.
const tapes = new Map();
window.flowlabTape = (key, text) => tapes.get(key)(text);

// A script and not a fetch: a page that was opened from a disk may fetch nothing.
function load(key, url) {
  return new Promise((take, fail) => {
    tapes.set(key, take);
    const script = document.createElement("script");
    script.src = url;
    script.onerror = () => fail(new Error(`${url} is missing`));
    document.head.append(script);
  });
}

class Tape {
  static async unroll(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Tape(new Uint8Array(await new Response(stream).arrayBuffer()));
  }

  constructor(bytes) {
    const size = new DataView(bytes.buffer).getUint32(0, true), words = new TextDecoder();
    Object.assign(this, JSON.parse(words.decode(bytes.subarray(4, 4 + size))));
    let at = 4 + size;
    this.pieces = this.lengths.map((length) => bytes.subarray(at, at += length));
    this.text = (piece) => words.decode(this.pieces[piece]);
    this.steps = this.layouts.map(() => null);  // read when they are needed
  }

  // The block in which a setting lies, and the frame there; none where no block holds it.
  find(setting) {
    const rest = (free) => setting.every((place, i) => free.includes(i) || place === this.controls[i].start);
    const block = this.blocks.find(({ free }) => rest(free));
    if (!block) return undefined;
    const at = block.free.reduce((at, i) => at * this.controls[i].shown.length + setting[i], 0);
    return this.frames[block.frames[at]];
  }

  // The setting nearest to this one that is there, with the control that was moved where it is now.
  nearest(setting, moved) {
    if (this.find(setting)) return setting;
    const kept = this.blocks.filter(({ free }) => free.includes(moved)).map(({ free }) =>
      setting.map((place, i) => free.includes(i) ? place : this.controls[i].start));
    const changes = (other) => other.filter((place, i) => place !== setting[i]).length;
    return kept.reduce((best, other) => changes(other) < changes(best) ? other : best);
  }

  // A scene as draw() wants it, with its images as bitmaps.
  async picture(number) {
    const [layout, places, images] = this.scenes[number];
    const steps = this.steps[layout] ??= this.layouts[layout].map((piece) => JSON.parse(this.text(piece)));
    const drawn = steps.filter((step) => step.kind !== "image");
    const room = (step) => 3 * (step.count ?? 0) + 2 * (step.places ?? 0);
    const numbers = new Float32Array(drawn.reduce((sum, step) => sum + room(step), 0));
    let at = 0;
    drawn.forEach((step, i) => {
      this.spread(this.pieces[places[i]], step.count ?? 0, step.places ?? 0, numbers.subarray(at, at += room(step)));
    });
    const bitmap = (piece) => createImageBitmap(new Blob([this.pieces[piece]], { type: "image/webp" }));
    return { scene: { steps, numbers }, images: await Promise.all(images.map(bitmap)) };
  }

  // Coordinates as they were before _whole() in tape.py: (x, y, code) of corners, then (x, y) of places.
  spread(piece, corners, places, numbers) {
    const [size] = piece, count = 2 * (corners + places);
    let at = 1;
    const column = (length, first, stride) => {
      for (let i = 0, sum = 0; i < length; i++, at++) {
        let folded = 0;
        for (let byte = 0; byte < size; byte++) folded += piece[at + byte * count] << 8 * byte;
        sum += (folded >>> 1) ^ -(folded & 1);
        numbers[first + i * stride] = sum / this.parts;
      }
    };
    column(corners, 0, 3);
    column(corners, 1, 3);
    column(places, 3 * corners, 2);
    column(places, 3 * corners + 1, 2);
    for (let i = 0; i < corners; i++) numbers[3 * i + 2] = piece[1 + size * count + i];
  }
}

// One explorer of a page: its HTML has the controls and a still picture, in whose place the canvas comes.
class Explorer {
  constructor(figure, tape) {
    const one = (name) => figure.querySelector(name);
    Object.assign(this, { figure, tape, readout: one(".readout"), spoken: one("[role=status]"), still: one("img") });
    this.inputs = [...figure.querySelectorAll("[data-control]")];
    this.size = ["width", "height"].map((side) => Number(this.still.getAttribute(side)));
    this.setting = tape.controls.map((control) => control.start);
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.context = this.canvas.getContext("2d");
    this.canvas.style.aspectRatio = this.size.join(" / ");
    Object.assign(this, { now: null, sheet: null, sheetOf: -1, scale: 0, drawing: false, stale: false, playing: null, last: null });
    this.inputs.forEach((input, i) => input.addEventListener("input", () => { this.pause(); this.move(i, place(input)); }));
    one(".reset").addEventListener("click", () => { this.pause(); this.go(tape.controls.map((c) => c.start)); });
    for (const button of figure.querySelectorAll(".play")) {
      button.addEventListener("click", () => this.press(button));
    }
  }

  async begin() {
    await this.go(this.setting);
    this.still.replaceWith(this.canvas);
    this.figure.querySelector("fieldset").disabled = false;
    new ResizeObserver(() => { if (this.wanted() !== this.scale) this.show(); }).observe(this.canvas);
  }

  // Put one control at a place; others go back to where they began if the tape holds nothing else.
  move(moved, to) {
    const setting = this.setting.map((place, i) => i === moved ? to : place);
    return this.go(this.tape.nearest(setting, moved));
  }

  // To another setting; its picture, where it is at hand already.
  async go(setting, picture) {
    this.setting = setting;
    this.inputs.forEach((input, i) => put(input, setting[i], this.tape.controls[i].shown));
    const [, , readout, alt] = this.tape.find(setting);
    this.readout.innerHTML = this.tape.text(readout);
    this.canvas.setAttribute("aria-label", this.tape.text(alt));
    clearTimeout(this.resting);  // a screen reader hears what is seen once the hand rests
    if (this.now) this.resting = setTimeout(() => { this.spoken.textContent = this.tape.text(alt); }, 700);
    if (picture) this.arrive(picture);
    else await this.show();
  }

  // As many dots as the screen has, so that lines and letters are sharp.
  wanted() {
    return Math.min(3, Math.max(1, (this.canvas.clientWidth || this.still.clientWidth) * devicePixelRatio / this.size[0]));
  }

  // To unpack images takes a moment. What comes in the meantime waits, and only the newest of it is drawn.
  async show() {
    this.stale = true;
    if (this.drawing) return;
    this.drawing = true;
    while (this.stale) {
      this.stale = false;
      const [sheet, scene] = this.tape.find(this.setting);
      await this.lay(sheet);
      this.arrive(await this.tape.picture(scene));
    }
    this.drawing = false;
  }

  // What stands still, drawn once for each size.
  async lay(number) {
    if (number === this.sheetOf && this.wanted() === this.scale) return;
    const { scene, images } = await this.tape.picture(number);
    this.scale = this.wanted();
    this.sheet = new OffscreenCanvas(...this.size.map((side) => Math.round(side * this.scale)));
    draw(this.sheet.getContext("2d"), scene, images, this.scale);
    this.sheetOf = number;
  }

  paint(picture) {
    const { canvas, context, sheet } = this;
    if (canvas.width !== sheet.width || canvas.height !== sheet.height) {
      canvas.width = sheet.width; canvas.height = sheet.height;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(sheet, 0, 0);
    draw(context, picture.scene, picture.images, this.scale);
    this.now = picture;
    canvas.dataset.frames = Number(canvas.dataset.frames ?? 0) + 1;
  }

  arrive(picture) {
    this.paint(picture);
    if (!this.playing) this.last?.images.forEach((bitmap) => bitmap.close());
    this.last = picture;
  }

  press(button) {
    const input = this.inputs.find((input) => input.id === button.getAttribute("aria-controls"));
    const paused = this.playing === button;
    this.pause();
    if (!paused) this.play(button, this.inputs.indexOf(input));
  }

  // From where the control is to its end, or from its beginning where it is at the end; the picture glides between.
  async play(button, moved) {
    const run = this.playing = button, last = this.tape.controls[moved].shown.length - 1;
    button.setAttribute("aria-pressed", "true");
    if (this.setting[moved] === last) await this.move(moved, 0);
    const milliseconds = Math.min(600, Math.max(80, 8000 / last));
    while (this.playing === run && this.setting[moved] < last) {
      const from = this.now, before = performance.now();
      const to = this.tape.nearest(this.setting.map((place, i) => i === moved ? place + 1 : place), moved);
      const [sheet, scene] = this.tape.find(to);
      const target = await this.tape.picture(scene);
      await this.lay(sheet);
      const between = way(from, target);
      for (let share = 0; share < 1 && this.playing === run;) {
        const time = await new Promise(requestAnimationFrame);
        share = Math.min(1, Math.max(0, (time - before) / milliseconds));
        if (share < 1 && this.playing === run) this.paint(between(share));
      }
      if (this.playing === run) await this.go(to, target);
    }
    if (this.playing === run) this.pause();
  }

  pause() {
    this.playing?.setAttribute("aria-pressed", "false");
    this.playing = null;
  }
}

const place = (input) => input.type === "checkbox" ? Number(input.checked) : input.selectedIndex ?? Number(input.value);
function put(input, at, shown) {
  if (input.type === "checkbox") input.checked = at === 1;
  else if (input.tagName === "SELECT") input.selectedIndex = at;
  else {
    input.value = at;
    input.setAttribute("aria-valuetext", shown[at]);
    input.parentElement.querySelector(".value").textContent = shown[at];
  }
}

async function unroll(figure) {
  const { tape, root = "" } = figure.dataset;
  const explorer = figure.explorer = new Explorer(figure, await Tape.unroll(await load(tape, `${root}tapes/${tape}.js`)));
  await explorer.begin();
  figure.dataset.ready = "";
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if ("opening" in figure.dataset && !calm) figure.querySelector(".play")?.click();
}
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    unroll(target);
  }
}, { rootMargin: "600px" });
document.querySelectorAll("[data-tape]").forEach((figure) => near.observe(figure));
