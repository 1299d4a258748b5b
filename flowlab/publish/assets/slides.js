// What is wider or higher than a slide is made smaller.
function fit() {
  const slide = Reveal.getCurrentSlide();
  const box = slide?.querySelector(".fit");
  if (!box) return;
  for (const formula of box.querySelectorAll(".math.display")) {
    const wide = formula.scrollWidth / formula.clientWidth;
    if (wide > 1) formula.style.fontSize = `${90 / wide}%`;
  }
  box.style.zoom = 1;
  const room = Reveal.getConfig().height;
  for (let n = 0; n < 4 && box.offsetHeight * box.style.zoom > room; n++) {
    box.style.zoom = Math.max(0.5, box.style.zoom * Math.min(0.97, room / (box.offsetHeight * box.style.zoom)));
  }
}
Reveal.initialize({
  width: 1200,
  height: 680,
  margin: 0.05,
  center: false,
  hash: true,
  slideNumber: "c/t",
  transition: "none",
  backgroundTransition: "none",
  scrollActivationWidth: 0,
  plugins: [RevealNotes],
});
Reveal.on("ready", fit);
Reveal.on("slidechanged", fit);
