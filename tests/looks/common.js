// What the looks share: words, geometry and colours.

const SLACK = 1; // px that boxes may share, or stand out
const page = document.documentElement;
const problems = [];
const complain = (bad, sentence) => bad && problems.push(sentence);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const quoted = (text) => {
  const line = text.trim().replace(/\s+/g, " ");
  return `"${line.length > 40 ? `${line.slice(0, 39)}…` : line}"`;
};
const place = (element) => {
  const near = (element.closest("svg")?.parentElement ?? element).closest("[id]"); // drawings' own ids say little
  return near ? ` in #${near.id}` : "";
};
const named = (element) => `<${element.tagName.toLowerCase()}>${place(element)}`;

// --- geometry: a box is { left, top, right, bottom } in px ---------------------------------------------------

const EVERYWHERE = { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
const bounds = (points) => {
  const [xs, ys] = [points.map((p) => p.x), points.map((p) => p.y)];
  return { left: Math.min(...xs), top: Math.min(...ys), right: Math.max(...xs), bottom: Math.max(...ys) };
};
const shared = (a, b) => ({
  left: Math.max(a.left, b.left),
  top: Math.max(a.top, b.top),
  right: Math.min(a.right, b.right),
  bottom: Math.min(a.bottom, b.bottom),
});
const corners = (x, y, width, height, matrix = new DOMMatrix()) =>
  [[x, y], [x + width, y], [x + width, y + height], [x, y + height]].map(([u, v]) =>
    new DOMPoint(u, v).matrixTransform(matrix),
  );
const cornersOf = (shape, carrier) => {
  const b = shape.getBBox();
  return corners(b.x, b.y, b.width, b.height, carrier.getScreenCTM());
};
// By how many px two convex quadrilaterals lie in each other along the side where that is least.
const depth = (a, b) => {
  const sides = [a, b].flatMap((q) => [0, 1].map((k) => ({ x: q[k + 1].x - q[k].x, y: q[k + 1].y - q[k].y })));
  const depths = sides.map(({ x, y }) => {
    const along = (q) => q.map((p) => (p.x * x + p.y * y) / (Math.hypot(x, y) || 1));
    const [p, q] = [along(a), along(b)];
    return Math.min(Math.max(...p), Math.max(...q)) - Math.max(Math.min(...p), Math.min(...q));
  });
  return Math.min(...depths);
};

// --- colours: [red, green, blue] of 0 to 255 and an alpha of 0 to 1 ------------------------------------------

const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const pixel = (paint) => {
  pen.clearRect(0, 0, 1, 1);
  paint();
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const known = new Map();
const colour = (css) => {
  if (!known.has(css)) known.set(css, pixel(() => ((pen.fillStyle = css), pen.fillRect(0, 0, 1, 1))));
  return known.get(css);
};
const faded = ([r, g, b, a], share) => [r, g, b, a * share];
const over = (top, below) => [...[0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3])), 1];
const luminance = (c) =>
  [0.2126, 0.7152, 0.0722].reduce((sum, weight, k) => {
    const v = c[k] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
const contrast = (a, b) => {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
};
const canvas = () => {
  if (print) return [255, 255, 255, 1]; // paper
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.backgroundColor = "Canvas";
  const found = colour(getComputedStyle(probe).backgroundColor);
  probe.remove();
  return found;
};
