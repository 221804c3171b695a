// Keeps the page live: each section arrives again when it changed, under its
// own id. Nothing here is needed to read or use the page.
"use strict";

const badge = document.getElementById("live");
const stream = new EventSource("/live");

stream.addEventListener("open", () => { badge.dataset.state = "live"; });
stream.addEventListener("error", () => { badge.dataset.state = "reconnecting"; });
stream.addEventListener("section", (event) => {
  const { id, html } = JSON.parse(event.data);
  const section = document.getElementById(id);
  // A reader's own doings survive: opened details, and how far a log was scrolled.
  const opened = [...section.querySelectorAll("details")].map((details) => details.open);
  const scrolled = [...section.querySelectorAll("pre")].map((pre) => [
    pre.scrollTop, pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4,
  ]);
  section.innerHTML = html;
  section.querySelectorAll("details").forEach((details, i) => { details.open = opened[i] ?? false; });
  section.querySelectorAll("pre").forEach((pre, i) => {
    const [top, atEnd] = scrolled[i] ?? [0, true];
    pre.scrollTop = atEnd ? pre.scrollHeight : top;
  });
  badge.lastChild.textContent = new Date().toISOString();
});

const words = (seconds) => {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (d > 0) return `${d} d ${h} h`;
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min ${seconds % 60} s` : `${seconds} s`;
};
setInterval(() => {
  for (const time of document.querySelectorAll("time.elapsed")) {
    time.textContent = words(Math.max(0, Math.floor((Date.now() - Date.parse(time.dateTime)) / 1000)));
  }
}, 1000);
