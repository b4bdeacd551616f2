// The page asks the service for a score and a map, and draws the map itself, so that the threshold can be moved.
"use strict";

const $ = (id) => document.getElementById(id);

// Every fifth colour of the map "inferno", as 0xRRGGBB, low to high.
const stops = [
  0x000004, 0x02020c, 0x050417, 0x0a0722, 0x10092d, 0x160b39, 0x1e0c45, 0x260c51, 0x2f0a5b,
  0x380962, 0x400a67, 0x490b6a, 0x510e6c, 0x59106e, 0x61136e, 0x69166e, 0x71196e, 0x781c6d,
  0x801f6c, 0x88226a, 0x902568, 0x982766, 0xa02a63, 0xa82e5f, 0xb0315b, 0xb73557, 0xbf3952,
  0xc63d4d, 0xcc4248, 0xd34743, 0xd94d3d, 0xdf5337, 0xe45a31, 0xe9612b, 0xed6925, 0xf1711f,
  0xf47918, 0xf78212, 0xf98b0b, 0xfa9407, 0xfb9d07, 0xfca60c, 0xfcb014, 0xfbba1f, 0xfac42a,
  0xf8cd37, 0xf6d746, 0xf4e156, 0xf2ea69, 0xf2f27d, 0xf5f992, 0xfcffa4,
];

// inferno holds R, G, B of 256 levels: the stops with straight lines between them.
const inferno = new Uint8Array(3 * 256);
for (let i = 0; i < 256; i++) {
  const a = Math.floor(i / 5), b = Math.min(a + 1, stops.length - 1);
  for (let c = 0; c < 3; c++) {
    const from = (stops[a] >> (16 - 8 * c)) & 255, to = (stops[b] >> (16 - 8 * c)) & 255;
    inferno[3 * i + c] = Math.floor((from * (5 - (i % 5)) + to * (i % 5) + 2) / 5);
  }
}

const contour = [0, 255, 220];
const minShown = 640, maxShown = 1024; // pixels of the longer side on the screen
const maxHistory = 100; // pictures that are kept
const maxEarlier = 10000; // rows of those before them
const maxRows = 50;

let models = [];
let items = []; // judged pictures, latest first
let earlier = []; // rows of the table of those that are kept no more, latest last
let current = null; // the item shown
let scene = null; // current's picture and enlarged map: {W, H, base, values}
const moved = new Map(); // thresholds that were moved, by model

// ---- Talking to the service

async function loadModels() {
  const answer = await fetch("v1/models");
  if (!answer.ok) throw new Error(await reasonOf(answer));
  models = (await answer.json()).models;
  const chosen = $("model").value;
  $("model").replaceChildren(...models.map((m) => new Option(m.name, m.name, false, m.name === chosen)));
  $("model").disabled = models.length < 2;
  showModel();
}

function modelNamed(name) {
  return models.find((m) => m.name === name);
}

function showModel() {
  const m = modelNamed($("model").value);
  const note = !m ? "No model is ready yet. The service takes one up as soon as its file is there; then reload this page."
    : m.provisional ? "The threshold of this model is provisional (" + m.rule + "): it promises no rate of false alarms." : "";
  $("note").textContent = note;
  $("note").hidden = note === "";
}

async function reasonOf(answer) {
  try {
    return (await answer.json()).error || answer.statusText;
  } catch {
    return "the service answered " + answer.status + " " + answer.statusText;
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// predict asks for a verdict, and again later where the service is busy.
async function predict(model, file, name) {
  const address = "v1/models/" + encodeURIComponent(model) + "/predict?heatmap=1&name=" + encodeURIComponent(name);
  for (let attempt = 1; ; attempt++) {
    const answer = await fetch(address, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    if (answer.ok) return answer.json();
    if (answer.status !== 503 || attempt === 5) throw new Error(await reasonOf(answer));
    await pause(Math.min(Number(answer.headers.get("Retry-After")) || 1, 10));
  }
}

function floatsOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const view = new DataView(bytes.buffer), values = new Float32Array(bytes.length / 4);
  for (let i = 0; i < values.length; i++) values[i] = view.getFloat32(4 * i, true);
  return values;
}

// mapOf is a map of the service's: its values row by row, and the blur of these.
const mapOf = ({ data, width, height, blur }) => ({ map: floatsOf(data), columns: width, rows: height, blur });

// lookedOf is the map of what the model looks at of a picture, which is W x H pixels from x, y on.
function lookedOf({ heatmap, width, height }) {
  const part = heatmap.looked || { x: 0, y: 0, width, height, map: heatmap };
  return { ...mapOf(part.map), x: part.x, y: part.y, W: part.width, H: part.height };
}

// ---- From files to items

let work = Promise.resolve();

function judgeAll(files) {
  const model = $("model").value;
  complain("");
  for (const file of files) work = work.then(() => judge(model, file));
}

async function judge(model, file) {
  const name = file.name || "picture";
  say("Judging " + name + " …", "");
  try {
    if (!model) throw new Error("no model is ready");
    const p = await predict(model, file, name);
    const outline = (modelNamed(model) || { outline: { low: 0, share: 0, blur: 0, min_area: 0, min_length: 0, all: false } }).outline;
    const item = { model, file, name, p, time: new Date(), correction: "", outline, ...mapOf(p.heatmap), looked: lookedOf(p) };
    delete p.heatmap;
    item.picture = await decode(file, p);
    item.thumb = await thumbnail(item.picture);
    items.unshift(item);
    for (const old of items.splice(maxHistory)) {
      earlier.push(rowOf(old));
      URL.revokeObjectURL(old.thumb);
    }
    earlier.splice(0, earlier.length - maxEarlier);
    await show(item);
    if (p.warnings) complain(name + ": " + p.warnings.join("; "));
  } catch (e) {
    complain(name + ": " + e.message);
    if (current) refresh();
    else say("No verdict", "");
  }
}

// decode draws a file, or grey where the browser does not know the format, as large as it will be shown.
async function decode(file, p) {
  const longer = Math.max(p.width, p.height), scale = Math.min(Math.max(longer, minShown), maxShown) / longer;
  const W = Math.max(1, Math.round(p.width * scale)), H = Math.max(1, Math.round(p.height * scale));
  const canvas = new OffscreenCanvas(W, H), context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#808080";
  context.fillRect(0, 0, W, H);
  try {
    const bitmap = await createImageBitmap(file);
    context.drawImage(bitmap, 0, 0, W, H);
    bitmap.close();
  } catch {
    complain("This browser cannot show " + (file.name || "the picture") + "; verdict and map are right all the same.");
  }
  return canvas.convertToBlob({ type: "image/png" });
}

async function thumbnail(blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, 240 / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, bitmap.width * scale), Math.max(1, bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return URL.createObjectURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 }));
}

// ---- What the map says at a threshold

function thresholdOf(item) {
  return moved.has(item.model) ? moved.get(item.model) : item.p.threshold;
}

// cutOf is the threshold of the map: the model may have another one for pixels than for scores.
function cutOf(item) {
  const { threshold, pixel_threshold: pixels } = item.p;
  if (!moved.has(item.model)) return pixels;
  const now = moved.get(item.model);
  return pixels === threshold || !(threshold > 0) ? now : now * pixels / threshold; // a score need not be its map's maximum
}

// outlineOf is what of the map is outlined, as the service does it: a good picture has no outlines, an anomalous one has some.
function outlineOf(item) {
  const o = item.outline, anomalous = item.p.score > thresholdOf(item), cut = cutOf(item);
  const above = o.all ? cut : anomalous ? Math.min(cut, item.p.score) : Infinity;
  return { ...o, above, low: Math.min(o.low === item.p.pixel_threshold ? cut : o.low, above) };
}

// around calls visit for the pixels of an item's map that touch pixel i, and i itself.
function around(i, { columns, rows }, visit) {
  const x = i % columns, y = (i - x) / columns;
  for (let v = Math.max(0, y - 1); v <= Math.min(rows - 1, y + 1); v++) {
    for (let u = Math.max(0, x - 1); u <= Math.min(columns - 1, x + 1); u++) visit(v * columns + u);
  }
}

// groundUnder is what the hills of a map stand on: what a tenth of its positive values, of a sample, are below.
function groundUnder(map, o) {
  if (o.share === 0) return o.low;
  const step = Math.floor(map.length / 4096) | 1, values = [];
  for (let i = 0; i < map.length; i += step) if (map[i] > 0) values.push(map[i]);
  values.sort((a, b) => a - b);
  return values.length === 0 ? o.low : Math.min(values[Math.floor(0.1 * (values.length - 1))], o.low);
}

// hillsOf floods a map from its peaks down, and returns the parts that are outlined: a pixel inside, and the level that they
// are above; then the lower peaks of those of several, which are outlined where the others leave them out. metric.Outline says why.
function hillsOf(item, o, ground) {
  const { map } = item, order = [], found = [], summits = [];
  const parent = new Int32Array(map.length).fill(-1), lead = new Int32Array(map.length), ended = new Uint8Array(map.length);
  for (let i = 0; i < map.length; i++) if (map[i] > o.low) order.push(i);
  order.sort((a, b) => map[b] - map[a] || a - b);
  const cut = (i) => Math.max(o.low, ground + o.share * (map[i] - ground));
  const end = (at, level) => { if (map[at] > o.above) found.push({ at, level }); };
  const find = (i) => {
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  };
  for (const i of order) {
    const v = map[i];
    let root = parent[i] = lead[i] = i;
    around(i, item, (j) => {
      if (j === i || parent[j] < 0) return;
      const other = find(j);
      if (!ended[other] && v <= cut(lead[other])) {
        ended[other] = 1;
        end(lead[other], cut(lead[other]));
      }
      if (root === i || other === root) {
        root = parent[i] = other;
        return;
      }
      let lower = other;
      if (map[other] > map[root] || (map[other] === map[root] && other < root)) [lower, root] = [root, other];
      const peak = map[lead[lower]];
      if (!ended[lower] && peak > o.above && peak - v >= (peak - ground) / 8) {
        if (lead[lower] === lower) summits.push({ at: lower, level: v });
        if (ended[root]) {
          lead[root] = lead[lower];
          ended[root] = 0;
        }
      }
      parent[lower] = root;
    });
  }
  for (const i of order) if (parent[i] === i && !ended[i]) end(lead[i], cut(lead[i]));
  summits.sort((a, b) => map[b.at] - map[a.at] || a.at - b.at);
  return { hills: found, summits };
}

// connected returns the pixels of an item's map that inside says are, as far as they are connected with the first.
function connected(first, item, seen, number, inside) {
  const all = [first];
  seen[first] = number;
  for (let n = 0; n < all.length; n++) {
    around(all[n], item, (j) => {
      if (seen[j] !== number && inside(j)) {
        seen[j] = number;
        all.push(j);
      }
    });
  }
  return all;
}

// levelsOf says for each pixel of an item's map what the pixels of its region are above, Infinity outside: of every hill that much is
// left as the blur of the map has not added.
function levelsOf(item, o) {
  const { map } = item, levels = new Float64Array(map.length).fill(Infinity), ground = groundUnder(map, o), seen = new Int32Array(map.length);
  let number = 0;
  const mark = (hill) => {
    const inside = connected(hill.at, item, seen, ++number, (j) => map[j] > hill.level);
    const share = (hill.level - ground) / (map[hill.at] - ground), radius = Math.sqrt(inside.length / Math.PI);
    const blur = item.blur > 0 && share > 0 && share < 1 ? item.blur * Math.sqrt(Math.log(share) / Math.log(o.share)) : 0;
    const left = Math.max(radius - blur, radius / 3);
    let level = hill.level, n = Math.max(1, Math.round(Math.PI * left * left));
    if (n < inside.length) {
      inside.sort((a, b) => map[b] - map[a]);
      while (n < inside.length && map[inside[n]] === map[inside[0]]) n++;
      if (n < inside.length) level = map[inside[n]];
    }
    for (const i of inside) if (map[i] > level) levels[i] = Math.min(levels[i], level);
  };
  const { hills, summits } = hillsOf(item, o, ground);
  hills.forEach(mark);
  for (const hill of summits) if (levels[hill.at] === Infinity) mark(hill);
  return levels;
}

// outlinedOf finds the regions of an item, as the service does, in the picture's pixels, and the levels of the map's pixels.
function outlinedOf(item) {
  const { looked } = item, { map, columns, rows, W, H } = looked, o = outlineOf(item), regions = [];
  const levels = levelsOf(looked, o), seen = new Int32Array(map.length);
  for (let start = 0; start < map.length; start++) {
    if (seen[start] || levels[start] === Infinity) continue;
    const r = { left: columns, top: rows, right: 0, bottom: 0, area: 0, peak: 0, mean: 0 };
    const inside = connected(start, looked, seen, 1, (j) => levels[j] < Infinity);
    for (const i of inside) {
      const x = i % columns, y = (i - x) / columns;
      r.left = Math.min(r.left, x); r.right = Math.max(r.right, x + 1);
      r.top = Math.min(r.top, y); r.bottom = Math.max(r.bottom, y + 1);
      r.peak = Math.max(r.peak, map[i]);
      r.mean += map[i] / inside.length;
    }
    r.left = looked.x + Math.floor(r.left * W / columns); r.right = looked.x + Math.ceil(r.right * W / columns);
    r.top = looked.y + Math.floor(r.top * H / rows); r.bottom = looked.y + Math.ceil(r.bottom * H / rows);
    r.area = Math.max(1, Math.round(inside.length * (W * H / map.length)));
    if (r.peak > o.above && r.area >= o.min_area && Math.max(r.right - r.left, r.bottom - r.top) >= o.min_length) regions.push(r);
    else for (const i of inside) levels[i] = Infinity;
  }
  regions.sort((a, b) => b.peak - a.peak || a.top - b.top || a.left - b.left);
  return { regions, levels: spread(item, levels) };
}

// spread puts the levels of what is looked at to the pixels of the map over the whole picture, Infinity elsewhere: each takes that of the
// pixel below its middle.
function spread(item, levels) {
  const { looked, columns, rows, p } = item;
  if (looked.columns === columns && looked.rows === rows && looked.W === p.width && looked.H === p.height) return levels;
  const places = (n, picture, from, length, to) => Array.from({ length: n }, (_, i) => {
    const at = ((i + 0.5) * picture / n - from) * to / length;
    return at < 0 || at >= to ? -1 : Math.floor(at);
  });
  const across = places(columns, p.width, looked.x, looked.W, looked.columns), down = places(rows, p.height, looked.y, looked.H, looked.rows);
  const over = new Float64Array(columns * rows).fill(Infinity);
  for (let y = 0, i = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, i++) if (across[x] >= 0 && down[y] >= 0) over[i] = levels[down[y] * looked.columns + across[x]];
  }
  return over;
}

// outlinedAt says which pixels of an item's map, enlarged to W x H, are in its regions: those above the level of a region that reaches into
// or next to the map's pixel that they are in.
function outlinedAt(item, values, W, H, levels) {
  const near = levels.map((_, i) => {
    let least = Infinity;
    around(i, item, (j) => { least = Math.min(least, levels[j]); });
    return least;
  });
  const inside = new Uint8Array(W * H);
  for (let y = 0, i = 0; y < H; y++) {
    const row = item.columns * Math.floor(y * item.rows / H);
    for (let x = 0; x < W; x++, i++) inside[i] = values[i] > near[row + Math.floor(x * item.columns / W)] ? 1 : 0;
  }
  return inside;
}

// enlarge resizes an item's map bilinearly to W x H, with half-pixel centres.
function enlarge({ map, columns, rows }, W, H) {
  const tap = (i, from, to) => {
    const at = Math.min(Math.max((i + 0.5) * from / to - 0.5, 0), from - 1), a = Math.floor(at);
    return [a, Math.min(a + 1, from - 1), at - a];
  };
  const across = Array.from({ length: W }, (_, x) => tap(x, columns, W));
  const out = new Float32Array(W * H), line = new Float32Array(columns);
  for (let y = 0; y < H; y++) {
    const [a, b, part] = tap(y, rows, H);
    for (let x = 0; x < columns; x++) line[x] = map[a * columns + x] + part * (map[b * columns + x] - map[a * columns + x]);
    for (let x = 0; x < W; x++) {
      const [l, r, p] = across[x];
      out[y * W + x] = line[l] + p * (line[r] - line[l]);
    }
  }
  return out;
}

// ---- What an operator says, and the table of the session

let saying = Promise.resolve();

// correct notes what a picture really shows, "good" or "anomalous", or takes that back where it is noted already. Where the service has
// recorded the picture, its history is told first.
async function correct(item, verdict) {
  const said = item.correction === verdict ? "" : verdict;
  complain("");
  try {
    if (item.p.record) {
      const answer = await fetch("v1/records/" + item.p.record + "/correction", { method: "PUT",
        body: JSON.stringify({ verdict: said || "none" }), headers: { "Content-Type": "application/json" } });
      if (!answer.ok) throw new Error(await reasonOf(answer));
    }
    item.correction = said;
  } catch (e) {
    complain("The correction of " + item.name + " is not kept: " + e.message);
  }
  refresh();
}

// header names the columns, those of the tables that infer image --csv and infer history --csv write.
const header = ["id", "time", "image", "verdict", "score", "threshold", "p_value", "regions", "boxes", "model", "sha256", "heatmap", "moved",
  "error", "warnings", "correction", "note"];

// rowOf is a picture's row in the table: what the page says of it, at the threshold as it was moved.
function rowOf(item) {
  const { p } = item, boxes = (moved.has(item.model) ? outlinedOf(item).regions.map((r) => [r.left, r.top, r.right - r.left, r.bottom - r.top])
    : p.regions.map((r) => [r.x, r.y, r.width, r.height])).map((box) => box.join(" "));
  const known = { id: p.record, time: item.time.toISOString(), image: item.name, verdict: p.score > thresholdOf(item) ? "anomalous" : "good",
    score: p.score, threshold: thresholdOf(item), p_value: p.p_value, regions: boxes.length, boxes: boxes.join("; "), model: item.model,
    warnings: (p.warnings || []).join("; "), correction: item.correction };
  return header.map((name) => cellOf(known[name] ?? "")).join(",");
}

// cellOf is a value as CSV has it, on one line.
function cellOf(value) {
  const text = String(value).replace(/\p{Cc}/gu, (c) => "\\x" + c.codePointAt(0).toString(16).padStart(2, "0"));
  return /^\s|[",]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

// table is the session as CSV, the oldest picture first.
function table() {
  return [header.join(","), ...earlier, ...items.map(rowOf).reverse()].join("\n") + "\n";
}

function saveTable() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv;charset=utf-8" }));
  link.download = "session-" + new Date().toISOString().slice(0, 19).replaceAll(":", "") + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// ---- Drawing

async function show(item) {
  const bitmap = await createImageBitmap(item.picture);
  const view = $("view"), W = view.width = bitmap.width, H = view.height = bitmap.height;
  const context = view.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  scene = { W, H, base: context.getImageData(0, 0, W, H).data, values: enlarge(item, W, H) };
  current = item;
  $("stage").hidden = $("facts").hidden = $("where").hidden = $("past").hidden = false;
  document.querySelector(".picture").classList.add("used");
  refresh();
}

// highOf is where the colours end: at one and a half times the threshold of the map, or at its maximum where that is higher.
function highOf(threshold) {
  return Math.max(1.5 * threshold, current.map.reduce((a, b) => Math.max(a, b), 0), Number.MIN_VALUE);
}

function paint(regions, cut, levels) {
  const { W, H, base, values } = scene, context = $("view").getContext("2d");
  const picture = context.createImageData(W, H), out = picture.data;
  const over = Math.round(256 * $("opacity").value / 100), factor = 255 / highOf(cut);
  const outlined = $("outlines").checked, wide = Math.max(1, Math.floor((W + 256) / 512));
  const inside = outlined ? outlinedAt(current, values, W, H, levels) : null;
  const within = (x, y) => x >= 0 && y >= 0 && x < W && y < H && inside[y * W + x] === 1;
  for (let y = 0, i = 0; y < H; y++) {
    for (let x = 0; x < W; x++, i++) {
      const v = values[i], c = 3 * Math.floor(Math.min(Math.max(v * factor, 0), 255) + 0.5), to = 4 * i;
      const edge = outlined && inside[i] === 1 && !(within(x, y - wide) && within(x, y + wide) && within(x - wide, y) && within(x + wide, y));
      for (let k = 0; k < 3; k++) out[to + k] = edge ? contour[k] : (base[to + k] * (256 - over) + inferno[c + k] * over) >> 8;
      out[to + 3] = 255;
    }
  }
  context.putImageData(picture, 0, 0);
  if (outlined) label(context, regions.slice(0, maxRows));
}

// label frames regions and numbers them as the table does.
function label(context, regions) {
  const { W, H } = scene, sx = W / current.p.width, sy = H / current.p.height, size = Math.max(11, Math.round(W / 45));
  context.font = "600 " + size + "px system-ui, sans-serif";
  context.textBaseline = "top";
  regions.forEach((r, i) => {
    const x = r.left * sx, y = r.top * sy, w = (r.right - r.left) * sx, h = (r.bottom - r.top) * sy;
    context.lineWidth = Math.max(1, W / 500);
    context.setLineDash([size / 3, size / 4]);
    context.strokeStyle = "#ffffff";
    context.strokeRect(x + 0.5, y + 0.5, Math.max(1, w - 1), Math.max(1, h - 1));
    const text = String(i + 1), wide = context.measureText(text).width + size / 2;
    const left = Math.min(x, W - wide), top = y >= size * 1.2 ? y - size * 1.2 : y;
    context.fillStyle = "rgba(0, 0, 0, .75)";
    context.fillRect(left, top, wide, size * 1.2);
    context.fillStyle = "#ffffff";
    context.fillText(text, left + size / 4, top + size * 0.12);
  });
  context.setLineDash([]);
}

// drawScale fills the legend's strip with the colours.
function drawScale() {
  const context = $("scale").getContext("2d"), strip = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) strip.data.set([inferno[3 * i], inferno[3 * i + 1], inferno[3 * i + 2], 255], 4 * i);
  context.putImageData(strip, 0, 0);
}

// refresh shows the current item at the current threshold.
function refresh() {
  const item = current, p = item.p, threshold = thresholdOf(item), cut = cutOf(item);
  const anomalous = p.score > threshold, { regions, levels } = outlinedOf(item);
  paint(regions, cut, levels);
  say(anomalous ? "✕ Anomalous" : "✓ Good", anomalous ? "bad" : "good");
  $("name").textContent = item.name + " · " + item.model + (moved.has(item.model) ? " · threshold moved" : "");
  $("score").textContent = number(p.score);
  $("limit").textContent = number(threshold);
  $("rare").textContent = p.p_value === null ? "none" : (p.p_value_bound ? "≤ " : "") + p.p_value.toFixed(4);
  $("rare").title = p.p_value === null ? "The model is not calibrated, so it does not know how rare scores are." : "How rare such a score is among good parts.";
  $("needle").style.left = 100 * (threshold > 0 ? p.score / (p.score + threshold) : anomalous ? 1 : 0.5) + "%";
  $("reallyGood").setAttribute("aria-pressed", String(item.correction === "good"));
  $("reallyBad").setAttribute("aria-pressed", String(item.correction === "anomalous"));
  $("kept").textContent = item.correction === "" ? "" : p.record ? "Kept in the history, as record " + p.record + "."
    : "Kept on this page alone: the service keeps no history.";
  $("high").textContent = number(highOf(cut));
  const slider = $("threshold");
  slider.disabled = false;
  slider.max = Math.max(2 * p.threshold, 1.25 * p.score, threshold);
  slider.value = threshold;
  $("thresholdText").textContent = number(threshold);
  $("reset").disabled = !moved.has(item.model);
  $("count").textContent = regions.length === 0 ? "none" : String(regions.length);
  $("regions").replaceChildren(...regions.slice(0, maxRows).map((r, i) => row(i + 1, r.left + ", " + r.top,
    (r.right - r.left) + " × " + (r.bottom - r.top), String(r.area), number(r.peak), number(r.mean))));
  document.querySelector(".wide").hidden = regions.length === 0;
  $("view").setAttribute("aria-label", item.name + " under its anomaly map: " + (anomalous ? "anomalous" : "good") + ", " +
    (regions.length === 1 ? "1 region" : regions.length + " regions") + " outlined");
  refreshHistory();
}

function row(...cells) {
  const tr = document.createElement("tr");
  for (const text of cells) tr.insertCell().textContent = text;
  return tr;
}

function refreshHistory() {
  let flagged = 0;
  const list = items.map((item) => {
    const anomalous = item.p.score > thresholdOf(item);
    if (anomalous) flagged++;
    item.entry ||= entryOf(item);
    const [button, verdict, really] = item.parts;
    button.setAttribute("aria-current", String(item === current));
    verdict.textContent = anomalous ? "✕ anomalous" : "✓ good";
    verdict.className = anomalous ? "bad" : "good";
    really.textContent = item.correction && "really " + item.correction;
    return item.entry;
  });
  const history = $("history");
  if (history.children.length !== list.length || history.firstChild !== list[0]) history.replaceChildren(...list);
  $("tally").textContent = items.length + (items.length === 1 ? " picture, " : " pictures, ") + flagged + " anomalous" +
    (earlier.length > 0 ? "; " + earlier.length + " earlier in the CSV alone" : "");
}

function entryOf(item) {
  const entry = document.createElement("li"), button = document.createElement("button"), image = new Image();
  const [verdict, really, score, file] = Array.from({ length: 4 }, () => document.createElement("span"));
  button.type = "button";
  image.src = item.thumb;
  image.alt = "";
  score.textContent = "score " + number(item.p.score);
  file.className = "file";
  file.textContent = item.name;
  really.className = "really";
  button.append(image, verdict, really, score, file);
  button.addEventListener("click", () => show(item));
  entry.append(button);
  item.parts = [button, verdict, really];
  return entry;
}

const number = (x) => x.toFixed(x < 10 ? 4 : 2);

function say(text, kind) {
  const verdict = $("verdict");
  if (verdict.textContent !== text) verdict.textContent = text; // said aloud only when it changes
  verdict.className = "badge " + kind;
}

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = text === "";
}

// ---- The camera

let stream = null;

async function startCamera() {
  if (!navigator.mediaDevices) { // only over HTTPS and on this machine itself
    $("snap").click();
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: { ideal: "environment" }, width: { ideal: 1920 } } });
  } catch (e) {
    complain("The camera cannot be used: " + e.message);
    return;
  }
  $("video").srcObject = stream;
  await $("video").play();
  $("live").hidden = false;
  $("shoot").focus();
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  $("video").srcObject = null;
  $("live").hidden = true;
  $("camera").focus();
}

async function shoot() {
  const video = $("video"), canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  const name = "camera " + new Date().toLocaleTimeString();
  judgeAll([new File([blob], name, { type: "image/png" })]);
}

// ---- What people do

let painting = 0;

function later() { // many movements of a slider make one picture
  if (!current || painting) return;
  painting = requestAnimationFrame(() => {
    painting = 0;
    refresh();
  });
}

$("threshold").addEventListener("input", () => {
  if (current) moved.set(current.model, Number($("threshold").value));
  later();
});
$("reset").addEventListener("click", () => {
  moved.delete(current.model);
  later();
});
$("opacity").addEventListener("input", () => {
  $("opacityText").textContent = $("opacity").value + " %";
  later();
});
$("outlines").addEventListener("change", later);
$("model").addEventListener("change", showModel);
for (const id of ["files", "snap"]) {
  $(id).addEventListener("change", () => {
    judgeAll(Array.from($(id).files));
    $(id).value = "";
  });
}
$("camera").addEventListener("click", startCamera);
$("shoot").addEventListener("click", shoot);
$("stop").addEventListener("click", stopCamera);
$("clear").addEventListener("click", () => {
  for (const item of items) if (item !== current) URL.revokeObjectURL(item.thumb);
  items = items.filter((item) => item === current);
  earlier = [];
  refresh();
});
for (const [id, verdict] of [["reallyGood", "good"], ["reallyBad", "anomalous"]]) {
  $(id).addEventListener("click", () => {
    const item = current;
    saying = saying.then(() => correct(item, verdict));
  });
}
$("save").addEventListener("click", saveTable);
document.addEventListener("dragover", (e) => {
  e.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (e) => {
  if (!e.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (e) => {
  e.preventDefault();
  $("drop").classList.remove("over");
  judgeAll(Array.from(e.dataTransfer.files));
});
document.addEventListener("paste", (e) => {
  const files = Array.from(e.clipboardData.files);
  if (files.length > 0) judgeAll(files);
});

drawScale();
loadModels().catch((e) => complain("The service does not answer: " + e.message));
