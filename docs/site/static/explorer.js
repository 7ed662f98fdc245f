// The explorer: choose answers, see the rendered files, and what each switch changes.
// data/manifest.js has every file's name and how many lines it has for which variants;
// data/<number>.js has the lines of one file, each with the variants that it is in.
"use strict";

const explorer = (() => {
  const $ = (id) => document.getElementById(id);
  const form = document.querySelector("form.answers");
  const fields = document.querySelector(".fields");
  const CLOSING = "\x80";
  const MARKS = /[\x80-\x9f]/g;
  const TEMPLATE = "gh:org/template";

  let manifest = null;
  let files = []; // {number, name, counts, mask, lines}
  let figures = null;
  const waiting = new Map(); // file number → functions to call with its lines
  const state = {
    answers: choice.current(),
    from: null, // the variant to compare with, as answers
    texts: {}, // what was typed; a text that was not is cookiecutter's default
    file: "app/transaction.py",
    view: "files",
    layout: "inline",
    case: "commit",
    only: false,
    open: new Set(["app"]),
  };

  // Variants as numbers: each switch is a bit, the first the highest.
  const indexOf = (answers) =>
    manifest.switches.reduce(
      (index, { name, choices }) => index * 2 + choices.indexOf(answers[name]),
      0,
    );
  const nameOf = (answers) => choice.names.map((name) => answers[name]).join("-");
  const isIn = (mask, variant) => (mask >>> variant) & 1;
  const bare = (line) => line.replace(MARKS, "");
  const plural = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

  // What the address has to say, so that a choice can be sent to somebody.
  function readAddress() {
    const asked = new URLSearchParams(location.search);
    for (const name of Object.keys(manifest.texts))
      if (asked.has(name)) state.texts[name] = asked.get(name);
    if (asked.has("file")) state.file = asked.get("file");
    if (asked.get("view") === "timeline") state.view = "timeline";
    if (asked.get("layout") === "split") state.layout = "split";
    if (asked.has("case")) state.case = asked.get("case");
    const from = (asked.get("from") ?? "").split("-");
    if (manifest.switches.every(({ choices }, n) => choices.includes(from[n])))
      state.from = Object.fromEntries(choice.names.map((name, n) => [name, from[n]]));
  }

  function writeAddress() {
    const query = new URLSearchParams(state.answers);
    for (const [name, text] of Object.entries(state.texts)) query.set(name, text);
    query.set("file", state.file);
    if (state.from) query.set("from", nameOf(state.from));
    if (state.layout !== "inline") query.set("layout", state.layout);
    if (state.view !== "files") {
      query.set("view", state.view);
      query.set("case", state.case);
    }
    try {
      history.replaceState(null, "", `?${query.toString().replaceAll("%2F", "/")}`);
    } catch {
      // Some browsers refuse more than a hundred in half a minute; the next one will do.
    }
  }

  // The names, as typed or as they follow from each other.
  function texts() {
    const found = { ...manifest.texts, ...state.texts };
    if (!("project_slug" in state.texts))
      found.project_slug = names.slugOf(found.project_name, manifest.slug);
    return found;
  }

  function fill(text, filled) {
    return text.replace(/[\ue000-\ue0fe]/g, (mark) => filled[mark] ?? mark);
  }

  // Files.
  function receive(number, runs) {
    files[number].lines = runs.flatMap(([mask, text]) =>
      text.split("\n").map((line) => [mask, line]),
    );
    for (const call of waiting.get(number) ?? []) call();
    waiting.delete(number);
  }

  function withLines(file, call) {
    if (file.lines) return call();
    const calls = waiting.get(file.number) ?? [];
    if (!calls.length) site.load(`data/${file.number}.js`);
    waiting.set(file.number, [...calls, call]);
    return undefined;
  }

  // The text of a file exactly as cookiecutter renders it, once its lines are here.
  function rendered(file, answers = state.answers, names_ = texts()) {
    const variant = indexOf(answers);
    if (!isIn(file.mask, variant)) return null;
    const lines = file.lines.filter(([mask]) => isIn(mask, variant));
    const filled = names.fillings(names_, manifest);
    return fill(lines.map(([, line]) => bare(line)).join("\n"), filled);
  }

  // What has changed since the variant that is compared with.
  function changeOf(file) {
    const to = indexOf(state.answers);
    const from = state.from ? indexOf(state.from) : to;
    const [was, is] = [isIn(file.mask, from), isIn(file.mask, to)];
    let added = 0;
    let removed = 0;
    for (const [mask, count] of file.counts) {
      if (isIn(mask, to) && !isIn(mask, from)) added += count;
      if (isIn(mask, from) && !isIn(mask, to)) removed += count;
    }
    let kind = "same";
    if (!was && !is) kind = "absent";
    else if (!was) kind = "added";
    else if (!is) kind = "removed";
    else if (added || removed) kind = "changed";
    // The end of a file's last line is no line.
    if (kind === "added") added -= 1;
    if (kind === "removed") removed -= 1;
    return { kind, added, removed };
  }

  // The tree.
  function nodes() {
    const root = { children: new Map(), path: "" };
    for (const file of files) {
      const change = changeOf(file);
      if (change.kind === "absent") continue;
      if (state.only && change.kind === "same") continue;
      let node = root;
      const parts = file.name.split("/");
      parts.forEach((part, depth) => {
        const path = parts.slice(0, depth + 1).join("/");
        if (!node.children.has(part))
          node.children.set(part, { name: part, path, children: new Map(), changed: 0 });
        node = node.children.get(part);
        if (change.kind !== "same") node.changed += 1;
      });
      node.file = file;
      node.change = change;
    }
    return root;
  }

  function badge(change) {
    if (change.kind === "added") return "new";
    if (change.kind === "removed") return "gone";
    return `+${change.added} −${change.removed}`;
  }

  function drawTree() {
    const tree = $("tree");
    const hadFocus = tree.contains(document.activeElement);
    const items = [];
    const walk = (node, level) => {
      for (const child of node.children.values()) {
        const item = document.createElement("div");
        item.role = "treeitem";
        item.tabIndex = -1;
        item.dataset.path = child.path;
        item.setAttribute("aria-level", level);
        item.style.setProperty("--level", level);
        const name = document.createElement("span");
        name.className = "name";
        name.textContent = child.name;
        item.append(name);
        if (child.file) {
          item.setAttribute("aria-selected", child.path === state.file);
          const { change } = child;
          if (change.kind !== "same") {
            item.classList.add(change.kind);
            const mark = document.createElement("span");
            mark.className = "badge";
            mark.textContent = badge(change);
            item.append(mark);
            const words = {
              added: "added",
              removed: "removed",
              changed: `${change.added} lines added, ${change.removed} removed`,
            };
            item.setAttribute("aria-label", `${child.name}, ${words[change.kind]}`);
          }
        } else {
          const isOpen = state.open.has(child.path) || (state.only && child.changed > 0);
          item.setAttribute("aria-expanded", isOpen);
          item.classList.add("folder");
          if (child.changed) {
            item.classList.add("has-changes");
            const mark = document.createElement("span");
            mark.className = "badge";
            mark.textContent = child.changed;
            item.append(mark);
            item.setAttribute("aria-label", `${child.name}, ${plural(child.changed, "changed file")}`);
          }
          items.push(item);
          if (isOpen) walk(child, level + 1);
          continue;
        }
        items.push(item);
      }
    };
    walk(nodes(), 1);
    tree.replaceChildren(...items);
    const current = items.find((item) => item.dataset.path === state.focus) ??
      items.find((item) => item.dataset.path === state.file) ?? items[0];
    if (current) {
      current.tabIndex = 0;
      if (hadFocus) current.focus();
    }
  }

  function openFoldersOf(path) {
    const parts = path.split("/");
    for (let n = 1; n < parts.length; n++) state.open.add(parts.slice(0, n).join("/"));
  }

  function activate(item) {
    const { path } = item.dataset;
    state.focus = path;
    if (item.classList.contains("folder")) {
      if (state.open.has(path)) state.open.delete(path);
      else state.open.add(path);
      drawTree();
    } else {
      state.file = path;
      drawTree();
      drawFile(true);
      writeAddress();
    }
  }

  function onTreeKey(event) {
    const items = [...$("tree").children];
    const item = event.target.closest("[role=treeitem]");
    const at = items.indexOf(item);
    if (at < 0) return;
    const isOpen = item.getAttribute("aria-expanded");
    const level = Number(item.getAttribute("aria-level"));
    let to = null;
    if (event.key === "ArrowDown") to = items[at + 1];
    else if (event.key === "ArrowUp") to = items[at - 1];
    else if (event.key === "Home") to = items[0];
    else if (event.key === "End") to = items.at(-1);
    else if (event.key === "Enter" || event.key === " ") activate(item);
    else if (event.key === "ArrowRight" && isOpen === "false") activate(item);
    else if (event.key === "ArrowRight" && isOpen === "true") to = items[at + 1];
    else if (event.key === "ArrowLeft" && isOpen === "true") activate(item);
    else if (event.key === "ArrowLeft")
      to = items.slice(0, at).findLast((each) => Number(each.getAttribute("aria-level")) < level);
    else return;
    event.preventDefault();
    if (to) {
      item.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
      state.focus = to.dataset.path;
    }
  }

  const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const escaped = (text) => text.replace(/[&<>]/g, (each) => ESCAPES[each]);

  // The HTML of a line with its colours; `range` of it differs from the other variant.
  function painted(line, filled, range) {
    const [start, end] = range ?? [0, 0];
    let html = "";
    let kind = "";
    let at = 0;
    const put = (text, isDifferent) => {
      if (!text) return;
      const name = isDifferent ? `${kind} differs`.trim() : kind;
      const shown = escaped(fill(text, filled));
      html += name ? `<span class="${name}">${shown}</span>` : shown;
    };
    for (const piece of line.split(/([\x80-\x9f])/)) {
      if (piece === CLOSING) kind = "";
      else if (piece in manifest.classes) kind = manifest.classes[piece];
      else {
        const [from, to] = [start, end].map((cut) =>
          Math.min(Math.max(cut - at, 0), piece.length),
        );
        put(piece.slice(0, from), false);
        put(piece.slice(from, to), true);
        put(piece.slice(to), false);
        at += piece.length;
      }
    }
    return html;
  }

  function lineOf(tag, number, line, filled, range) {
    const name = line === null ? "line none" : "line";
    const shown = line === null ? "" : painted(line, filled, range);
    const at = number ? ` data-n="${number}"` : "";
    return `<${tag} class="${name}"${at}>${shown}\n</${tag}>`;
  }

  function rangesOf(a, b) {
    if (a === null || b === null) return [undefined, undefined];
    const [old, now] = [bare(a), bare(b)];
    const [start, oldEnd, nowEnd] = diff.middle(old, now);
    const kept = start + old.length - oldEnd;
    // Lines that have little in common are marked as a whole.
    if (kept < 0.3 * Math.max(old.length, now.length)) return [undefined, undefined];
    return [[start, oldEnd], [start, nowEnd]];
  }

  function inline(rows, filled) {
    let html = "";
    let number = 0;
    for (let n = 0; n < rows.length; ) {
      if (rows[n][0] === rows[n][1]) {
        number += 1;
        html += lineOf("span", number, rows[n][1], filled);
        n += 1;
        continue;
      }
      let end = n;
      while (end < rows.length && rows[end][0] !== rows[end][1]) end += 1;
      const hunk = rows.slice(n, end);
      for (const [old, now] of hunk)
        if (old !== null) html += lineOf("del", 0, old, filled, rangesOf(old, now)[0]);
      for (const [old, now] of hunk)
        if (now !== null) {
          number += 1;
          html += lineOf("ins", number, now, filled, rangesOf(old, now)[1]);
        }
      n = end;
    }
    return `<pre><code>${html}</code></pre>`;
  }

  function split(rows, filled) {
    const columns = ["", ""];
    const numbers = [0, 0];
    for (const row of rows) {
      const isSame = row[0] === row[1];
      const ranges = isSame ? [] : rangesOf(...row);
      row.forEach((line, side) => {
        if (line !== null) numbers[side] += 1;
        const tag = isSame || line === null ? "span" : ["del", "ins"][side];
        columns[side] += lineOf(tag, line === null ? 0 : numbers[side], line, filled, ranges[side]);
      });
    }
    const [old, now] = columns.map((html) => `<code>${html}</code>`);
    return (
      `<pre class="old" role="group" aria-label="Before">${old}</pre>` +
      `<pre class="new" role="group" aria-label="After">${now}</pre>`
    );
  }

  function drawFile(isNew = false) {
    const file = files.find(({ name }) => name === state.file);
    if (!file) {
      state.file = "README.md";
      drawFile(isNew);
      return;
    }
    withLines(file, () => {
      if (file.name !== state.file) return; // another was chosen meanwhile
      const to = indexOf(state.answers);
      const from = state.from ? indexOf(state.from) : to;
      const change = changeOf(file);
      const rows = diff.rows(file.lines, from, to, bare);
      // What follows the last line's end is no line.
      const last = rows.at(-1);
      if (last && (last[0] ?? "") === "" && (last[1] ?? "") === "") rows.pop();
      const filled = names.fillings(texts(), manifest);
      const isSplit = state.layout === "split" && change.kind === "changed";
      const lines = $("lines");
      const top = lines.scrollTop;
      lines.classList.toggle("split", isSplit);
      lines.innerHTML = (isSplit ? split : inline)(rows, filled);
      $("file-name").textContent = file.name;
      const words = {
        same: state.from ? "unchanged" : "",
        absent: "not in this variant",
        added: "added",
        removed: "removed",
        changed: badge(change),
      };
      $("file-change").textContent = words[change.kind];
      $("file-change").className = change.kind;
      const hasChange = change.kind === "changed";
      $("next").hidden = !hasChange;
      $("layouts").hidden = !hasChange;
      $("copy-file").hidden = !isIn(file.mask, to);
      lines.scrollTop = isNew && !hasChange ? 0 : top;
      if (hasChange) nextChange(true);
    });
  }

  function nextChange(isFirst = false) {
    const lines = $("lines");
    const column_ = lines.querySelector("pre.new") ?? lines;
    const starts = [...column_.querySelectorAll("ins, del, .none")].filter(
      (line) => !line.previousElementSibling?.matches("ins, del, .none"),
    );
    if (!starts.length) return;
    const above = lines.getBoundingClientRect().top + lines.clientHeight / 4;
    const next = isFirst
      ? starts[0]
      : (starts.find((line) => line.getBoundingClientRect().top > above + 4) ?? starts[0]);
    lines.scrollTop += next.getBoundingClientRect().top - above;
  }

  // Commands.
  function changedTexts() {
    const found = Object.entries(state.texts).filter(
      ([name, text]) => text !== manifest.texts[name],
    );
    return Object.fromEntries(found);
  }

  function given() {
    const found = changedTexts();
    for (const { name, choices } of manifest.switches)
      if (state.answers[name] !== choices[0]) found[name] = state.answers[name];
    return found;
  }

  function command(tool) {
    const answers = given();
    if (tool === "cruft") {
      const extra = Object.keys(answers).length
        ? ` --extra-context ${names.quoted(JSON.stringify(answers))}`
        : "";
      return `uvx cruft create ${TEMPLATE} --no-input${extra}`;
    }
    const runner = { uv: "uvx cookiecutter", pipx: "pipx run cookiecutter" }[tool];
    const pairs = Object.entries(answers).map(([name, text]) => names.quoted(`${name}=${text}`));
    return [runner ?? "cookiecutter", TEMPLATE, "--no-input", ...pairs].join(" ");
  }

  function update() {
    const changed = {};
    for (const { name } of manifest.switches)
      if (state.from[name] !== state.answers[name]) changed[name] = state.answers[name];
    return `cruft update --skip-apply-ask --variables-to-update '${JSON.stringify(changed)}'`;
  }

  function drawCommand() {
    const tool = document.querySelector("[name=tool]:checked").value;
    $("command").textContent = command(tool);
    const found = texts();
    for (const input of fields.querySelectorAll("input")) {
      if (document.activeElement !== input) input.value = state.texts[input.name] ?? "";
      input.placeholder = found[input.name] ?? manifest.texts[input.name] ?? "";
      if (input.name === "project_slug") input.placeholder = found.project_slug ?? "";
    }
    const fault = names.fault(found, manifest);
    $("fault").textContent = fault;
    for (const input of fields.querySelectorAll("input"))
      input.setAttribute("aria-invalid", fault.startsWith(input.name));
  }

  function drawChange() {
    const isCompared = state.from !== null;
    $("change").hidden = !isCompared;
    $("compare").hidden = isCompared;
    if (!isCompared) return;
    const kinds = { added: 0, removed: 0, changed: 0 };
    let plus = 0;
    let minus = 0;
    for (const file of files) {
      const { kind, added, removed } = changeOf(file);
      if (!(kind in kinds)) continue;
      kinds[kind] += 1;
      plus += added;
      minus += removed;
    }
    const switched = choice.names
      .filter((name) => state.from[name] !== state.answers[name])
      .map((name) => `${name}: ${state.from[name]} → ${state.answers[name]}`);
    const found = [
      plural(kinds.changed, "file") + (kinds.changed === 1 ? " changes" : " change"),
      kinds.added && `${kinds.added} added`,
      kinds.removed && `${kinds.removed} removed`,
    ].filter(Boolean);
    $("status").textContent = switched.length
      ? `${switched.join(", ")}. ${found.join(", ")}: ` +
        `${plural(plus, "line")} added, ${minus.toLocaleString("en")} removed.`
      : "The two variants are the same.";
    $("from").value = nameOf(state.from);
    $("update").textContent = switched.length ? update() : "";
    document.querySelector(".update").hidden = !switched.length;
  }

  // The timeline.
  function draw(found) {
    figures = found;
    const cases = $("cases");
    for (const [name, title] of Object.entries(found.cases)) {
      const label = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name: "case", value: name });
      const span = document.createElement("span");
      span.textContent = title;
      label.append(input, span);
      cases.append(label);
    }
    drawTimeline();
  }

  function drawTimeline() {
    if (state.view !== "timeline") return;
    if (!figures) {
      if (figures === null) site.load("data/timelines.js");
      figures = undefined; // it is under way
      return;
    }
    if (!(state.case in figures.cases)) state.case = "commit";
    document.querySelector(`[name=case][value=${state.case}]`).checked = true;
    const { io, commit, pattern } = state.answers;
    const timeline = $("timeline");
    timeline.innerHTML = figures.figures[`${io}-${commit}-${pattern}-${state.case}`];
    sequence.draw(timeline.firstElementChild);
    $("see-transaction").href = `?${new URLSearchParams({ ...state.answers, file: "app/transaction.py" })}`;
  }

  function showView() {
    for (const name of ["files", "timeline"]) {
      const tab = $(`tab-${name}`);
      const isShown = state.view === name;
      tab.setAttribute("aria-selected", isShown);
      tab.tabIndex = isShown ? 0 : -1;
      $(`panel-${name}`).hidden = !isShown;
    }
    $("main").dataset.view = state.view;
    drawTimeline();
  }

  function drawAll() {
    for (const [name, answer] of Object.entries(state.answers)) form.elements[name].value = answer;
    drawCommand();
    drawChange();
    drawTree();
    drawFile();
    drawTimeline();
    writeAddress();
  }

  function answer(answers) {
    const before = state.answers;
    state.answers = { ...before, ...answers };
    if (nameOf(before) !== nameOf(state.answers) && !state.isPinned) state.from = before;
    for (const [name, value] of Object.entries(answers)) choice.choose(name, value);
    drawAll();
  }

  function compareWith(answers) {
    state.from = answers;
    drawAll();
  }

  function listen() {
    form.addEventListener("change", ({ target }) => answer({ [target.name]: target.value }));
    for (const input of document.querySelectorAll("[name=tool]"))
      input.addEventListener("change", drawCommand);
    fields.addEventListener("input", ({ target }) => {
      if (target.value === "" && target.name !== "description") delete state.texts[target.name];
      else state.texts[target.name] = target.value;
      drawCommand();
      if (["README.md", "pyproject.toml"].includes(state.file)) drawFile();
      writeAddress();
    });
    $("tree").addEventListener("click", (event) => {
      const item = event.target.closest("[role=treeitem]");
      if (item) activate(item);
    });
    $("tree").addEventListener("keydown", onTreeKey);
    $("only").addEventListener("change", ({ target }) => {
      state.only = target.checked;
      drawTree();
    });
    $("clear").addEventListener("click", () => {
      state.isPinned = false;
      state.only = false;
      $("only").checked = false;
      compareWith(null);
      $("compare").focus();
    });
    $("swap").addEventListener("click", () => {
      const { from } = state;
      state.from = state.answers;
      state.answers = from;
      for (const [name, value] of Object.entries(from)) choice.choose(name, value);
      drawAll();
    });
    $("compare").addEventListener("click", () => {
      state.isPinned = true;
      state.layout = "split";
      document.querySelector("[name=layout][value=split]").checked = true;
      const last = manifest.switches[0];
      const other = last.choices.find((each) => each !== state.answers[last.name]);
      compareWith({ ...state.answers, [last.name]: other });
      $("from").focus();
    });
    $("from").addEventListener("change", ({ target }) => {
      state.isPinned = true;
      const parts = target.value.split("-");
      compareWith(Object.fromEntries(choice.names.map((name, n) => [name, parts[n]])));
    });
    $("next").addEventListener("click", () => nextChange());
    $("layouts").addEventListener("change", ({ target }) => {
      state.layout = target.value;
      drawFile();
      writeAddress();
    });
    $("copy-file").addEventListener("click", ({ target }) => {
      site.copy(rendered(files.find(({ name }) => name === state.file)), target);
    });
    $("share").addEventListener("click", ({ target }) => {
      writeAddress();
      site.copy(location.href, target);
    });
    const tabs = document.querySelector("[role=tablist]");
    const show = (view) => {
      state.view = view;
      showView();
      writeAddress();
    };
    tabs.addEventListener("click", ({ target }) => {
      if (target.id.startsWith("tab-")) show(target.id.slice(4));
    });
    tabs.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      show(state.view === "files" ? "timeline" : "files");
      $(`tab-${state.view}`).focus();
    });
    $("cases").addEventListener("change", ({ target }) => {
      state.case = target.value;
      drawTimeline();
      writeAddress();
    });
    $("see-transaction").addEventListener("click", (event) => {
      event.preventDefault();
      state.file = "app/transaction.py";
      openFoldersOf(state.file);
      show("files");
      drawTree();
      drawFile(true);
    });
    listenToQuestions();
  }

  function listenToQuestions() {
    const dialog = $("choose");
    const questions = dialog.querySelector("form");
    const chosen = () =>
      Object.fromEntries(
        ["io", "orm", "commit", "pattern"].map((name) => [
          name,
          questions.elements[`q-${name}`].value,
        ]),
      );
    const say = () => {
      $("choose-result").textContent = Object.values(chosen()).join(" · ");
    };
    $("help-me").addEventListener("click", () => {
      for (const name of ["io", "orm", "commit", "pattern"])
        questions.elements[`q-${name}`].value = state.answers[name];
      say();
      dialog.showModal();
    });
    questions.addEventListener("change", say);
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "take") answer(chosen());
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close("");
    });
  }

  function start(found) {
    manifest = found;
    files = manifest.files.map(([name, counts], number) => ({
      number,
      name,
      counts,
      mask: counts.reduce((mask, [each]) => mask | each, 0),
      lines: null,
    }));
    readAddress();
    openFoldersOf(state.file);
    state.isPinned = state.from !== null;
    const all = [{}];
    const variants = manifest.switches.reduce(
      (sets, { name, choices }) =>
        sets.flatMap((set) => choices.map((each) => ({ ...set, [name]: each }))),
      all,
    );
    for (const variant of variants) {
      const option = document.createElement("option");
      option.value = nameOf(variant);
      const { example, ...rest } = variant;
      option.textContent =
        Object.values(rest).join(" · ") + (example === "true" ? "" : " · without the example");
      $("from").append(option);
    }
    if (Object.keys(state.texts).length) document.querySelector(".names").open = true;
    document.querySelector(`[name=layout][value=${state.layout}]`).checked = true;
    listen();
    showView();
    drawAll();
  }

  return {
    start,
    receive,
    draw,
    rendered,
    withLines,
    state,
    files: () => files,
    manifest: () => manifest,
  };
})();
