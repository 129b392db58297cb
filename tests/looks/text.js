// Texts: large enough, apart from each other, not cut, of good contrast.
// Text that CSS makes (::before, list markers) is not looked at.

const SMALLEST = 11; // px
const CONTRAST = 4.5; // WCAG 2, level AA, small text
const SILENT = "script,style,template,noscript,select,title,desc,metadata,defs"; // not shown as text
const UNDRAWN = "defs,clipPath,marker"; // not shown where they stand

// --- texts: what is written, where (a quadrilateral a line), how large, and what cuts it ---------------------

// Which shares of a font's box lie above and below the letters (at least capitals): lines may lie close.
const blank = (text, css) => {
  pen.font = `${css.fontStyle} ${css.fontWeight} ${css.fontSize} ${css.fontFamily}`;
  const m = pen.measureText(`${css.textTransform === "uppercase" ? text.toUpperCase() : text}H`);
  const height = m.fontBoundingBoxAscent + m.fontBoundingBoxDescent;
  return [
    (m.fontBoundingBoxAscent - m.actualBoundingBoxAscent) / height,
    (m.fontBoundingBoxDescent - m.actualBoundingBoxDescent) / height,
  ];
};
const inSvg = (element, text, css) => {
  const [above, below] = blank(text, css);
  const [b, m] = [element.getBBox(), element.getScreenCTM()];
  const scale = Math.min(Math.hypot(m.a, m.b), Math.hypot(m.c, m.d));
  const quad = corners(b.x, b.y + above * b.height, b.width, b.height * (1 - above - below), m);
  return { quads: [quad], scale, flow: element.closest("text") };
};
const inHtml = (element, node, css) => {
  const [above, below] = blank(node.data, css);
  const range = document.createRange();
  range.selectNodeContents(node);
  const rects = [...range.getClientRects()].filter((r) => r.width > 0 && r.height > 0);
  const quads = rects.map((r) => corners(r.left, r.top + above * r.height, r.width, r.height * (1 - above - below)));
  let flow = element;
  while (/^(inline|contents)$/.test(getComputedStyle(flow).display)) flow = flow.parentElement;
  const scale = flow.offsetHeight ? flow.getBoundingClientRect().height / flow.offsetHeight : 1;
  return { quads, scale, flow };
};
// For screen readers only: a box of a pixel.
const unseen = (element) => {
  for (let e = element; e instanceof HTMLElement; e = e.parentElement) {
    if (getComputedStyle(e).position === "absolute" && e.offsetWidth <= 1 && e.offsetHeight <= 1) return true;
  }
  return false;
};
const texts = () => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const [node, element] = [walker.currentNode, walker.currentNode.parentElement];
    if (!node.data.trim() || element.closest(SILENT)) continue;
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || unseen(element)) continue;
    const css = getComputedStyle(element);
    const svg = element.closest("svg");
    const text = svg && element.getBBox ? inSvg(element, node.data, css) : inHtml(element, node, css);
    const name = quoted(node.data) + place(element);
    if (text.quads.length) found.push({ ...text, element, css, svg, name, ...frame(element) });
  }
  return found;
};

// What of `element`'s surroundings is in sight now, and where text is in sight for ever or after scrolling.
const frame = (element) => {
  let [seen, reached] = [EVERYWHERE, EVERYWHERE];
  let scrolled = { x: false, y: false };
  const cut = (area, css) => {
    seen = shared(seen, area);
    const x = !scrolled.x && /auto|scroll/.test(css.overflowX) && !print;
    const y = !scrolled.y && /auto|scroll/.test(css.overflowY) && !print;
    scrolled = { x: scrolled.x || x, y: scrolled.y || y };
    const across = scrolled.x ? {} : { left: area.left, right: area.right };
    const down = scrolled.y ? {} : { top: area.top, bottom: area.bottom };
    reached = shared(reached, { ...EVERYWHERE, ...across, ...down });
  };
  for (let e = element; e !== document.body; e = e.parentElement) {
    const css = getComputedStyle(e);
    const url = /^url\("#(.+)"\)$/.exec(css.clipPath);
    const clip = url && document.getElementById(url[1])?.querySelector("rect");
    if (clip) cut(bounds(cornersOf(clip, e)), {});
    const r = e.getBoundingClientRect();
    if (e.tagName === "svg" && !e.ownerSVGElement) cut(r, {});
    if (!(e instanceof HTMLElement)) continue;
    const [left, top] = [r.left + e.clientLeft, r.top + e.clientTop];
    const across = css.overflowX === "visible" ? {} : { left, right: left + e.clientWidth };
    const down = css.overflowY === "visible" ? {} : { top, bottom: top + e.clientHeight };
    cut({ ...EVERYWHERE, ...across, ...down }, css);
  }
  const edges = scrolled.x ? {} : { left: 0, right: page.clientWidth };
  return { seen, reached: shared(reached, { ...EVERYWHERE, top: scrolled.y ? -Infinity : 0, ...edges }) };
};

// --- the colour behind a text ----------------------------------------------------------------------------------

const drawn = new Map();
const shapes = (svg) => {
  if (!drawn.has(svg)) {
    const found = all("rect,path,circle,ellipse,polygon,use,image", svg).filter((e) => !e.closest(UNDRAWN));
    const alpha = (css) => css.opacity * css.fillOpacity;
    const described = found.map((e) => ({ e, css: getComputedStyle(e), box: e.getBoundingClientRect() }));
    drawn.set(svg, described.filter(({ e, css }) => e.tagName === "image" || (css.fill !== "none" && alpha(css))));
  }
  return drawn.get(svg);
};
const paintOf = ({ e, css }, point) => {
  const at = new DOMPoint(point.x, point.y).matrixTransform(e.getScreenCTM().inverse());
  if (e.tagName === "image") {
    const share = ["x", "y"].map((k, n) => (at[k] - e[k].baseVal.value) / e[["width", "height"][n]].baseVal.value);
    return pixel(() => pen.drawImage(e, ...share.map((s) => -1000 * s), 1000, 1000));
  }
  if (e.isGeometryInFill && !e.isGeometryInFill(at)) return [0, 0, 0, 0];
  return faded(colour(css.fill), css.opacity * css.fillOpacity);
};
const behind = (text, point, bottom) => {
  const layers = [];
  for (let e = text.element; e; e = e.parentElement) {
    const css = getComputedStyle(e);
    // On paper a browser leaves backgrounds out, unless the page insists.
    if (!print || css.printColorAdjust === "exact") layers.unshift(colour(css.backgroundColor));
  }
  for (const shape of text.svg ? shapes(text.svg) : []) {
    const { box, e } = shape;
    const inside = box.left <= point.x && point.x <= box.right && box.top <= point.y && point.y <= box.bottom;
    if (!inside || e.compareDocumentPosition(text.element) !== Node.DOCUMENT_POSITION_FOLLOWING) continue;
    layers.push(paintOf(shape, point));
  }
  return layers.reduce((below, layer) => over(layer, below), bottom);
};
const worstContrast = (text, bottom) => {
  const [a, b, c] = text.quads[0];
  const points = [-0.4, 0, 0.4].map((s) => ({
    x: (a.x + c.x) / 2 + s * (b.x - a.x),
    y: (a.y + c.y) / 2 + s * (b.y - a.y),
  }));
  const { color, fill, fillOpacity } = text.css;
  let ink = text.flow.tagName === "text" ? faded(colour(fill), fillOpacity) : colour(color);
  for (let e = text.element; e; e = e.parentElement) ink = faded(ink, getComputedStyle(e).opacity);
  const grounds = points.map((point) => behind(text, point, bottom));
  return Math.min(...grounds.map((ground) => contrast(over(ink, ground), ground)));
};

// --- what is asked of the page ---------------------------------------------------------------------------------

const readable = (written) => {
  const bottom = canvas();
  for (const text of written) {
    const size = parseFloat(text.css.fontSize) * text.scale;
    complain(size < SMALLEST - 0.05, `text ${text.name} is ${size.toFixed(1)} px large, less than ${SMALLEST}`);
    const r = text.reached;
    const across = (box) => box.left < r.left - SLACK || box.right > r.right + SLACK;
    const down = (box) => box.top < r.top - SLACK || box.bottom > r.bottom + SLACK;
    complain(text.quads.map(bounds).some((box) => across(box) || down(box)), `text ${text.name} is cut`);
    const ratio = worstContrast(text, bottom);
    const sentence = `text ${text.name} has a contrast of ${ratio.toFixed(2)}, less than ${CONTRAST}`;
    complain(ratio < CONTRAST - 0.01, sentence);
  }
};
const apart = (written) => {
  const lines = written.flatMap((text, order) =>
    text.quads.map((quad) => ({ text, order, quad, box: shared(bounds(quad), text.seen) })),
  );
  lines.sort((a, b) => a.box.top - b.box.top);
  lines.forEach((a, k) => {
    for (let n = k + 1; n < lines.length && lines[n].box.top < a.box.bottom - SLACK; n++) {
      const [b, both] = [lines[n], shared(a.box, lines[n].box)];
      const beside = both.right - both.left <= SLACK || both.bottom - both.top <= SLACK;
      if (a.text.flow === b.text.flow || beside || depth(a.quad, b.quad) <= SLACK) continue;
      const [first, second] = a.order < b.order ? [a, b] : [b, a];
      complain(true, `texts ${first.text.name} and ${second.text.name} overlap`);
    }
  });
};
