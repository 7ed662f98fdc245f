// What differs between two renderings of a file: the build has every line with the
// variants it is in, so that only runs of changed lines are left to compare.
"use strict";

const diff = (() => {
  // Pairs up what two short lists have in common, in order.
  function common(a, b) {
    const longest = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        longest[i][j] =
          a[i] === b[j]
            ? longest[i + 1][j + 1] + 1
            : Math.max(longest[i + 1][j], longest[i][j + 1]);
    const pairs = [];
    for (let i = 0, j = 0; i < a.length && j < b.length; ) {
      if (a[i] === b[j]) pairs.push([i++, j++]);
      else if (longest[i + 1][j] >= longest[i][j + 1]) i++;
      else j++;
    }
    return pairs;
  }

  // Returns rows of [old, new]; one of them is null where a line was added or removed,
  // both are the same line where nothing changed.
  function rows(lines, from, to, bare) {
    const found = [];
    let removed = [];
    let added = [];
    const flush = () => {
      let i = 0;
      let j = 0;
      const end = [removed.length, added.length];
      for (const [x, y] of [...common(removed.map(bare), added.map(bare)), end]) {
        const [gone, come] = [removed.slice(i, x), added.slice(j, y)];
        for (let n = 0; n < Math.max(gone.length, come.length); n++)
          found.push([gone[n] ?? null, come[n] ?? null]);
        if (x < removed.length && y < added.length) found.push([added[y], added[y]]);
        [i, j] = [x + 1, y + 1];
      }
      removed = [];
      added = [];
    };
    for (const [mask, line] of lines) {
      const was = (mask >>> from) & 1;
      const is = (mask >>> to) & 1;
      if (was && is) {
        flush();
        found.push([line, line]);
      } else if (was) removed.push(line);
      else if (is) added.push(line);
    }
    flush();
    return found;
  }

  // Where two lines begin and cease to differ: [start, end in a, end in b].
  function middle(a, b) {
    let start = 0;
    while (start < Math.min(a.length, b.length) && a[start] === b[start]) start++;
    let tail = 0;
    while (
      tail < Math.min(a.length, b.length) - start &&
      a[a.length - 1 - tail] === b[b.length - 1 - tail]
    )
      tail++;
    return [start, a.length - tail, b.length - tail];
  }

  return { rows, middle };
})();
