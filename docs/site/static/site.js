// What every page does: the variant's switches, copying, colours, and the search.
"use strict";

const site = (() => {
  const root = document.documentElement;
  const up = document.body.dataset.up;

  // Copying: the clipboard is not there for pages from a disk in every browser.
  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const label = button.textContent;
    button.textContent = "Copied";
    button.disabled = true;
    setTimeout(() => {
      button.textContent = label;
      button.disabled = false;
    }, 1200);
  }

  // The code without the lines that are for other answers.
  function shownIn(pre) {
    const all = pre.cloneNode(true);
    const spans = pre.querySelectorAll("[data-variants]");
    all.querySelectorAll("[data-variants]").forEach((span, n) => {
      if (getComputedStyle(spans[n]).display === "none") span.remove();
    });
    return all.textContent;
  }

  for (const pre of document.querySelectorAll(".code > pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(shownIn(pre), button));
    pre.parentElement.append(button);
  }
  for (const button of document.querySelectorAll("[data-copies]")) {
    const source = document.getElementById(button.dataset.copies);
    button.addEventListener("click", () => copy(source.textContent, button));
  }

  for (const heading of document.querySelectorAll("article :is(h2, h3, h4)[id]")) {
    const anchor = document.createElement("a");
    Object.assign(anchor, { className: "anchor", href: `#${heading.id}`, tabIndex: -1 });
    anchor.ariaHidden = "true";
    anchor.textContent = "#";
    heading.append(anchor);
  }

  // The switches of a page.
  const form = document.querySelector("form.for");
  if (form) {
    for (const [name, answer] of Object.entries(choice.current())) {
      if (form.elements[name]) form.elements[name].value = answer;
    }
    form.addEventListener("change", (event) => {
      choice.choose(event.target.name, event.target.value);
      const query = new URLSearchParams(choice.current());
      history.replaceState(null, "", `?${query}${location.hash}`);
    });
  }
  const wide = matchMedia("(min-width: 60rem)");
  const menu = document.querySelector(".side details");
  if (menu) {
    const adapt = () => (menu.open = wide.matches);
    wide.addEventListener("change", adapt);
    adapt();
    menu.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
    scrollTo(0, location.hash ? scrollY : 0);
  }

  // Colours: as the system, light, dark.
  const look = document.querySelector("button[data-look]");
  const looks = ["system", "light", "dark"];
  const label = () => {
    const name = root.dataset.look ?? "system";
    look.setAttribute("aria-label", `Colours: ${name === "system" ? "as the system" : name}`);
    look.title = look.getAttribute("aria-label");
  };
  look.addEventListener("click", () => {
    const now = looks.indexOf(root.dataset.look ?? "system");
    root.dataset.look = looks[(now + 1) % looks.length];
    choice.remember("look", root.dataset.look);
    label();
  });
  label();

  function load(path) {
    const script = document.createElement("script");
    script.src = up + path;
    document.head.append(script);
  }

  return { copy, load, up };
})();

// The search: every word of the query has to be somewhere in a section.
const search = (() => {
  const dialog = document.querySelector("dialog.search");
  const input = dialog.querySelector("input");
  const list = dialog.querySelector("[role=listbox]");
  const count = dialog.querySelector(".count");
  const MOST = 12;
  let sections = null;
  let active = -1;

  function receive(found) {
    sections = found.map(([url, title, anchor, heading, text]) => ({
      url: anchor ? `${url}#${anchor}` : url,
      title,
      heading,
      text,
      low: text.toLowerCase(),
      lowTitle: title.toLowerCase(),
      lowHeading: heading.toLowerCase(),
    }));
    show();
  }

  function rank(section, words, query) {
    let points = 0;
    for (const word of words) {
      const inTitle = section.lowTitle.includes(word);
      const inHeading = section.lowHeading.includes(word);
      const at = section.low.indexOf(word);
      if (!inTitle && !inHeading && at < 0) return 0;
      points += (inHeading ? 8 : 0) + (inTitle ? 4 : 0) + (at >= 0 ? 2 : 0);
      if (at >= 0 && !/\w/.test(section.low[at - 1] ?? " ")) points += 1;
    }
    if (section.lowHeading.includes(query)) points += 8;
    if (section.low.includes(query)) points += 6;
    return points;
  }

  function snippet(section, words, query) {
    let at = section.low.indexOf(query);
    if (at < 0) at = Math.max(...words.map((word) => section.low.indexOf(word)));
    const start = Math.max(at - 50, 0);
    const text = section.text.slice(start, start + 150);
    const line = document.createElement("span");
    if (start > 0) line.append("…");
    const pattern = words.map((word) => word.replace(/[^\w]/g, "\\$&")).join("|");
    text.split(new RegExp(`(${pattern})`, "i")).forEach((piece, n) => {
      const mark = n % 2 ? document.createElement("mark") : null;
      mark?.append(piece);
      line.append(mark ?? piece);
    });
    return line;
  }

  function show() {
    const query = input.value.trim().toLowerCase();
    const words = query.split(/\s+/).filter(Boolean);
    list.replaceChildren();
    active = -1;
    input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-expanded", "false");
    if (!sections || !words.length) {
      count.textContent = "";
      return;
    }
    const found = sections
      .map((section) => [rank(section, words, query), section])
      .filter(([points]) => points)
      .sort(([a], [b]) => b - a);
    count.textContent = found.length
      ? `${found.length} ${found.length === 1 ? "section" : "sections"}`
      : "Nothing found. Try fewer words.";
    found.slice(0, MOST).forEach(([, section], n) => {
      const link = document.createElement("a");
      link.role = "option";
      link.id = `found-${n}`;
      link.setAttribute("aria-selected", "false");
      link.href = site.up + section.url;
      link.tabIndex = -1;
      const name = document.createElement("b");
      name.textContent =
        section.heading === section.title
          ? section.title
          : `${section.title} › ${section.heading}`;
      link.append(name, snippet(section, words, query));
      list.append(link);
    });
    if (found.length) {
      input.setAttribute("aria-expanded", "true");
      move(0);
    }
  }

  function move(to) {
    const items = list.children;
    if (!items.length) return;
    items[active]?.setAttribute("aria-selected", "false");
    active = (to + items.length) % items.length;
    items[active].setAttribute("aria-selected", "true");
    items[active].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", items[active].id);
  }

  function open() {
    if (dialog.open) return;
    if (!sections) site.load("data/search.js");
    dialog.showModal();
    input.select();
  }

  document.querySelector("[data-search]").addEventListener("click", open);
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input:not([type=radio]), select, textarea");
    const isSlash = event.key === "/" && !isTyping && !document.querySelector("dialog[open]");
    const isK = event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey);
    if (!isSlash && !isK) return;
    event.preventDefault();
    open();
  });
  input.addEventListener("input", show);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") move(active + 1);
    else if (event.key === "ArrowUp") move(active - 1);
    else if (event.key === "Enter") {
      const link = list.children[active];
      if (link) {
        dialog.close();
        link.click();
      }
    } else return;
    event.preventDefault();
  });
  list.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  return { receive };
})();
