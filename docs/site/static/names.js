// Names as cookiecutter renders them: the slug that follows from a name, what cannot
// be a name, and how a shell is told.
"use strict";

const names = (() => {
  // As cookiecutter's slugify; null where it takes letters that the page has no table of.
  function slugOf(text, rules) {
    if (/&(#\w+|\w+);/.test(text)) return null;
    let plain = "";
    for (const letter of text.replace(/'+/g, "-").normalize("NFKD")) {
      const code = letter.codePointAt(0);
      if (code < 128) plain += letter;
      else if (code > 0xffff) continue;
      else if (letter in rules.letters) plain += rules.letters[letter];
      else return null;
    }
    const slug = plain
      .toLowerCase()
      .replace(/'/g, "")
      .replace(/(?<=\d),(?=\d)/g, "")
      .replace(/[^a-z0-9-]+/g, "-")
      .replace(/-+/g, "-")
      .replace(/^-|-$/g, "")
      .slice(0, rules.longest)
      .replace(/-$/, "");
    return slug || rules.fallback;
  }

  function faultInSlug(slug, rules) {
    if (!new RegExp(`^(?:${rules.pattern})$`).test(slug))
      return "takes lower-case letters, digits and single hyphens, and begins with a letter";
    if (slug.length < 2 || slug.length > rules.longest)
      return `takes 2 to ${rules.longest} characters`;
    for (const [reason, refused] of Object.entries(rules.refused))
      if (refused.includes(slug)) return `${slug} ${reason}`;
    return "";
  }

  // Why these names cannot work, as the template's own hook would say; "" if they can.
  function fault(texts, manifest) {
    for (const [name, text] of Object.entries(texts)) {
      if (name === "project_slug") continue;
      if (name !== "description" && !text.trim()) return `${name} is blank`;
      if (/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u.test(text)) return `${name} has a control character`;
      if ([...text].length > manifest.longestText)
        return `${name} is longer than ${manifest.longestText} characters`;
      if (/\{\{|\{%|\{#/.test(text))
        return `${name}: cookiecutter renders {{ }} on its command line; type it at its prompt instead`;
    }
    if (texts.project_slug === null)
      return "project_slug: give it yourself, as only cookiecutter knows how to write this name in ASCII";
    const reason = faultInSlug(texts.project_slug, manifest.slug);
    return reason && `project_slug: ${reason}`;
  }

  // What stands in a rendering for each of its placeholders.
  function fillings(texts, manifest) {
    const filled = {};
    for (const [name, mark] of Object.entries(manifest.placeholders)) {
      const rule = manifest.derived[name];
      const text = texts[rule ? rule.of : name] ?? "";
      filled[mark] = rule
        ? [...text].map((each) => rule.escapes[each] ?? each).join("")
        : text;
    }
    return filled;
  }

  const quoted = (text) =>
    /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;

  return { slugOf, fault, fillings, quoted };
})();
