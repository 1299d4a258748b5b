// Set the formulas of the page. One that cannot be set stays as it was written, and is marked.
for (const place of document.querySelectorAll(".math")) {
  const displayMode = place.classList.contains("display");
  try {
    place.innerHTML = katex.renderToString(place.textContent, { displayMode });
  } catch (error) {
    place.classList.add("wrong");
    place.title = error.message;
  }
}
