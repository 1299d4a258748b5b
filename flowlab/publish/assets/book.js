// The search through the sections of all pages. No server is asked.
const root = document.body.dataset.root;
const box = document.getElementById("search");
const found = document.getElementById("found");
const count = document.getElementById("count");
const fold = (text) => text.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");
const sections = window.flowlabSections.map((s) => ({ ...s, low: fold(s.words), head: fold(`${s.title} ${s.heading}`) }));

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

function search() {
  const words = fold(box.value).split(/\s+/).filter(Boolean);
  found.replaceChildren();
  count.textContent = "";
  if (!words.length) return;
  const hits = sections.map((s) => [score(s, words), s]).filter(([points]) => points).sort((a, b) => b[0] - a[0]);
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

box.addEventListener("input", search);
box.form.addEventListener("submit", (e) => { e.preventDefault(); found.querySelector("a")?.click(); });
box.form.addEventListener("keydown", (e) => { if (e.key === "Escape") { box.value = ""; search(); box.focus(); } });
