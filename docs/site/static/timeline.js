// Draws a timeline as a sequence of arrows between lanes, from the list that says the
// same in words. The list stays, for narrow screens and for whoever listens.
"use strict";

const sequence = (() => {
  const [WIDTH, LEFT, APART, TOP, ROW] = [1000, 80, 168, 72, 38];

  function element(name, attributes, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  const words = (x, y, text, style) => element("text", { x, y, class: style }, text);

  function arrow(x, to, y, text, kind) {
    const way = to > x ? 1 : -1;
    const [start, tip] = [x + 6 * way, to - 6 * way];
    const group = element("g", { class: kind });
    group.append(
      element("line", { x1: start, y1: y, x2: tip - 6 * way, y2: y }),
      element("path", { d: `M${tip} ${y}l${-9 * way} -4.5v9z` }),
      words((start + tip) / 2, y - 7, text, "label"),
    );
    return group;
  }

  function note(x, y, text) {
    const width = 6.7 * text.length + 18;
    const left = Math.min(Math.max(x - width / 2, 4), WIDTH - width - 4);
    const box = { x: left, y: y - 15, width, height: 24, rx: 5, class: "note" };
    return [element("rect", box), words(left + width / 2, y + 1, text, "note-text")];
  }

  function draw(figure) {
    const items = [...figure.querySelectorAll(".steps > li")];
    if (!items.length || figure.classList.contains("drawn")) return;
    const x = (lane) => LEFT + APART * Number(lane);
    const y = (row) => TOP + ROW * row;
    const height = y(items.length) + 26;
    const svg = element("svg", {
      viewBox: `0 0 ${WIDTH} ${height}`,
      class: "sequence",
      "aria-hidden": "true",
    });
    figure.dataset.lanes.split("|").forEach((title, lane) => {
      const life = { x1: x(lane), y1: 40, x2: x(lane), y2: height - 8, class: "life" };
      svg.append(element("line", life), words(x(lane), 26, title, "lane"));
    });
    // How long the slot is held, and how long the transaction lasts.
    const rows = {};
    items.forEach((item, row) => (rows[item.dataset.event] = row));
    const bar = (lane, from, to, style) => {
      const [top, end] = [y(rows[from]), y(rows[to])];
      const box = { x: x(lane) - 5, y: top, width: 10, height: end - top, rx: 3 };
      svg.append(element("rect", { ...box, class: `bar ${style}` }));
    };
    if ("slot" in rows) bar(1, "slot", "slot back", "done");
    if ("begin" in rows) {
      const style = figure.querySelector("[data-event=committed]") ? "done" : "open";
      bar(5, "begin", "rollback" in rows ? "rollback" : "commit", style);
    }
    items.forEach((item, row) => {
      const [at, to] = item.dataset.way;
      const text = item.querySelector("span").textContent;
      if (at === to) svg.append(...note(x(at), y(row), text));
      else svg.append(arrow(x(at), x(to), y(row), text, item.className));
    });
    figure.prepend(svg);
    figure.classList.add("drawn");
  }

  for (const figure of document.querySelectorAll("figure.timeline")) draw(figure);
  return { draw };
})();
