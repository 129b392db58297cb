// The page as a whole: scrolling, images, structure, what it would load, and what paper would not show.

const scrolling = () => {
  const width = page.clientWidth;
  complain(page.scrollWidth > width, `the page scrolls sideways: ${page.scrollWidth} px in ${width}`);
  for (const e of all("body *").filter((e) => e.scrollWidth > e.clientWidth && !e.closest("svg"))) {
    const stuck = /auto|scroll/.test(getComputedStyle(e).overflowX) && e.tabIndex < 0 && !print;
    complain(stuck, `${named(e)} scrolls sideways, and the keyboard does not reach it: tabindex="0"`);
  }
};
const images = () => {
  for (const e of all("img")) {
    complain(!e.hasAttribute("alt"), `${named(e)} has no alt`);
    const drawing = e.src.startsWith("data:image/svg");
    complain(drawing, `${named(e)} is an SVG whose text cannot be looked at: put it inline`);
    complain(!drawing && e.complete && !e.naturalWidth, `${named(e)} shows nothing`);
  }
  for (const e of all("svg").filter((e) => !e.ownerSVGElement && !e.closest("[aria-hidden=true]"))) {
    const label = document.getElementById(e.getAttribute("aria-labelledby")) ?? e.querySelector(":scope > title");
    const name = e.getAttribute("aria-label") ?? label?.textContent ?? "";
    complain(!name.trim(), `${named(e)} has no title and no aria-label`);
    const outlines = all("g[id^=text_]", e).filter((g) => !g.querySelector("text") && g.querySelector("use,path"));
    complain(outlines.length, `${named(e)} draws letters as outlines: svg.fonttype "none" writes text`);
  }
};
const structure = () => {
  complain(!page.lang, "<html> has no lang");
  complain(!document.title.trim(), "the page has no title");
  complain(!document.querySelector("meta[name=viewport]"), "the page has no viewport for phones");
  let level = 0;
  for (const e of all("h1,h2,h3,h4,h5,h6").filter((e) => e.checkVisibility())) {
    const before = level ? `below H${level}` : "and the first";
    complain(+e.tagName[1] > level + 1, `heading ${quoted(e.textContent)} is ${e.tagName} ${before}`);
    level = +e.tagName[1];
  }
};
const references = () => {
  const ids = all("[id]").map((e) => e.id);
  const twice = [...new Set(ids.filter((id, k) => ids.indexOf(id) !== k))];
  const shown = twice.slice(0, 5).join(", ") + (twice.length > 5 ? "…" : "");
  complain(twice.length, `ids are given more than once: ${shown}`);
  const wanted = all("a[href^='#']").map((e) => decodeURIComponent(e.getAttribute("href").slice(1)));
  for (const name of ["aria-labelledby", "aria-describedby", "for"])
    wanted.push(...all(`[${name}]`).flatMap((e) => e.getAttribute(name).split(" ")));
  for (const id of new Set(wanted))
    complain(id && id !== "top" && !ids.includes(id), `nothing has the id ${id}, which is referred to`);
};
// What would be loaded late, or with other media, and so was not asked for yet.
const selfContained = () => {
  const names = ["src", "srcset", "poster", "data", "href", "xlink:href"];
  for (const e of all("[src],[srcset],[poster],object[data],link,use,image"))
    for (const value of names.map((name) => e.getAttribute(name)))
      complain(value && !/^(data:|#)/.test(value), `${named(e)} is not in the page: ${value?.slice(0, 80)}`);
  const inline = all("[style]").map((e) => e.getAttribute("style"));
  const css = [...all("style").map((e) => e.textContent), ...inline].join("\n");
  for (const [, value] of css.matchAll(/(?:@import|url\()\s*["']?(?!["'\s]|data:|#|url\()([^"');]+)/g))
    complain(true, `CSS is not in the page: ${value.slice(0, 80)}`);
};
const unfolded = () => {
  for (const e of print ? all("details") : []) {
    const part = getComputedStyle(e, "::details-content");
    const content = [...e.children].filter((c) => c.tagName !== "SUMMARY" && c.textContent.trim());
    const lost = part.contentVisibility === "hidden" || part.display === "none";
    const folded = lost || !content.every((c) => c.checkVisibility());
    complain(folded, `${named(e)} ${quoted(e.textContent)} is folded in print: its content is lost`);
  }
};
