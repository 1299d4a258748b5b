// A figure is enlarged by a tap on its picture, or by its button: it moves into a dialog, and back when that closes.
const large = document.createElement("dialog"), places = new Map();
large.className = "large";
large.setAttribute("aria-label", "The figure, enlarged");
document.body.append(large);
function enlarge(figure) {
  if (large.open) { large.close(); return; }
  const place = document.createElement("div");
  place.style.height = `${figure.offsetHeight}px`;
  places.set(figure, place);
  figure.replaceWith(place);
  large.append(figure);
  large.showModal();
}
large.addEventListener("close", () => {
  for (const [figure, place] of places) place.replaceWith(figure);
  places.clear();
});
for (const figure of document.querySelectorAll("figure")) {
  const button = document.createElement("button"), stage = figure.querySelector(".stage");
  button.type = "button";
  button.className = "enlarge";
  button.setAttribute("aria-label", "Enlarge the figure, or put it back");
  button.addEventListener("click", () => enlarge(figure));
  stage.before(button);
  stage.addEventListener("click", () => enlarge(figure));
}

// The search through the sections of all pages. No server is asked.
const root = document.body.dataset.root;
const box = document.getElementById("search");
const found = document.getElementById("found");
const count = document.getElementById("count");
const fold = (text) => text.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");

// The words of all pages weigh as much as the rest of one: they are loaded when somebody searches.
let loading = null;
function sections() {
  return loading ??= new Promise((take) => {
    const script = document.createElement("script");
    script.src = `${root}assets/search.js`;
    script.onload = () => take(window.flowlabSections.map(
      (s) => ({ ...s, low: fold(s.words), head: fold(`${s.title} ${s.heading}`) })));
    document.head.append(script);
  });
}

function score(section, words) {
  let sum = 0;
  for (const word of words) {
    const here = section.low.split(word).length - 1, above = section.head.includes(word) ? 8 : 0;
    if (!here && !above) return 0;
    sum += Math.min(here, 5) + above;
  }
  return sum;
}

function excerpt(section, word) {
  const near = Math.max(0, section.low.indexOf(word) - 40);
  const at = near ? section.words.indexOf(" ", near) + 1 : 0;
  return (at ? "…" : "") + section.words.slice(at, at + 120) + "…";
}

async function search() {
  const all = await sections(), words = fold(box.value).split(/\s+/).filter(Boolean);
  found.replaceChildren();
  count.textContent = "";
  if (!words.length) return;
  const hits = all.map((s) => [score(s, words), s]).filter(([points]) => points).sort((a, b) => b[0] - a[0]);
  count.textContent = hits.length ? `${hits.length} section${hits.length > 1 ? "s" : ""}` : "Nothing found";
  for (const [, section] of hits.slice(0, 12)) {
    const entry = document.createElement("li"), link = document.createElement("a"), text = document.createElement("span");
    link.href = `${root}${section.page}#${section.at}`;
    link.textContent = section.heading === section.title ? section.title : `${section.title} › ${section.heading}`;
    link.addEventListener("click", () => { box.value = ""; search(); });
    text.textContent = excerpt(section, words[0]);
    entry.append(link, text);
    found.append(entry);
  }
}

box.addEventListener("focus", sections);
box.addEventListener("input", search);
box.form.addEventListener("submit", (e) => { e.preventDefault(); found.querySelector("a")?.click(); });
box.form.addEventListener("keydown", (e) => { if (e.key === "Escape") { box.value = ""; search(); box.focus(); } });
