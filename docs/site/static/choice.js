// Which variant to show, known before the page is painted: the address says, or else
// what was chosen last, or else the default, which the page has already.
"use strict";

const choice = (() => {
  const root = document.documentElement;
  const choices = JSON.parse(root.dataset.choices);
  const names = Object.keys(choices);
  const asked = new URLSearchParams(location.search);

  function remembered(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null; // the browser keeps nothing for this page
    }
  }

  function remember(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // It is for this page only, then.
    }
  }

  const last = Object.fromEntries(new URLSearchParams(remembered("variant") ?? ""));
  const isAsked = names.some((name) => asked.has(name));
  for (const name of names) {
    const answer = isAsked ? asked.get(name) : last[name];
    if (choices[name].includes(answer)) root.dataset[name] = answer;
  }
  const look = remembered("look");
  if (look) root.dataset.look = look;

  return {
    names,
    current: () => Object.fromEntries(names.map((name) => [name, root.dataset[name]])),
    choose(name, answer) {
      root.dataset[name] = answer;
      remember("variant", new URLSearchParams(choice.current()).toString());
    },
    remember,
    remembered,
  };
})();
