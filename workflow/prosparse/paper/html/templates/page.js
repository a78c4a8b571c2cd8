"use strict";

// a chart is drawn when it comes near the screen: all at once would take seconds on a phone
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const options = {
  renderer: "svg",
  actions: { export: true, source: false, compiled: false, editor: false },
  tooltip: { theme: dark ? "dark" : "light" },
};
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    const spec = JSON.parse(document.getElementById(target.dataset.chart).textContent);
    vegaEmbed(target, spec, options).catch(console.error);
  }
}, { rootMargin: "300px" });
document.querySelectorAll("[data-chart]").forEach((chart) => near.observe(chart));

// one run's training at a time
document.getElementById("runs")?.addEventListener("change", (event) => {
  document.querySelectorAll(".run").forEach((run) => { run.hidden = run.id !== `${event.target.value}-run`; });
});

// a number opens the measurements behind it; without this script its link does
const files = JSON.parse(document.getElementById("files").textContent);
const source = document.getElementById("source");
const paragraph = (...parts) => {
  const made = document.createElement("p");
  made.append(...parts);
  return made;
};
const described = ({ path, ...made }) => {
  const link = document.createElement("a");
  link.href = path;
  link.textContent = path;
  const words = Object.entries(made).map(([name, value]) => `${name} ${value}`).join(", ");
  return paragraph(link, words ? `: ${words}` : "");
};
document.addEventListener("click", (event) => {
  const clicked = event.target.closest("[data-files], [data-note]");
  if (!clicked || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const { note, files: numbers } = clicked.dataset;
  source.replaceChildren(
    ...(note ? [paragraph(note)] : []),
    ...(numbers ?? "").split(" ").filter(Boolean).map((number) => described(files[number])),
  );
  source.showPopover();
});

// what does not hold the words is put away: rows of tables, then whole sections and their entries in the contents
const holds = (element, words) => element.textContent.toLowerCase().includes(words);
document.getElementById("search").addEventListener("input", (event) => {
  const words = event.target.value.trim().toLowerCase();
  for (const part of document.querySelectorAll("main > section")) {
    const rows = [...part.querySelectorAll("tbody tr")];
    const title = part.querySelector("h2, h3");
    const named = title && holds(title, words);
    rows.forEach((row) => row.classList.toggle("away", !named && !holds(row, words)));
    const found = named || rows.some((row) => holds(row, words)) || (!rows.length && holds(part, words));
    part.classList.toggle("away", !found);
    document.querySelectorAll(`nav a[href="#${part.id}"]`).forEach((entry) => entry.classList.toggle("away", !found));
  }
});
