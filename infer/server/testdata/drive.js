// Uses the page as a person does, and reports what it shows. The test serves this beside the page.
"use strict";

async function until(what, happened) {
  for (let i = 0; i < 1000; i++) {
    if (happened()) return;
    await pause(0.02);
  }
  throw new Error("it has not happened: " + what);
}

const drop = (bytes, name) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  $("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
};

const shown = () => {
  const { regions, levels } = outlinedOf(current);
  return {
    verdict: $("verdict").textContent, score: $("score").textContent, threshold: $("limit").textContent,
    history: $("history").children.length, label: $("view").getAttribute("aria-label"),
    regions: regions.map((r) => [r.left, r.top, r.right - r.left, r.bottom - r.top, r.area]),
    outlined: Array.from(levels.keys()).filter((i) => levels[i] < Infinity),
  };
};

async function moveTo(threshold) {
  $("threshold").value = threshold;
  $("threshold").dispatchEvent(new Event("input", { bubbles: true }));
  await until("the threshold has moved", () => $("limit").textContent === number(Number($("threshold").value)));
}

async function drive() {
  const report = { inferno: Array.from(inferno) };
  await until("the models are there", () => $("model").options.length > 0);
  drop(await (await fetch("picture.png")).arrayBuffer(), "picture.png");
  await until("the verdict is there", () => current);
  report.dropped = shown();
  await moveTo(0.75 * current.p.score);
  report.threshold = Number($("threshold").value);
  report.lower = shown();
  await moveTo(1.1 * current.p.score);
  report.higher = shown();
  $("reset").click();
  await until("the threshold is back", () => $("reset").disabled);
  report.reset = shown();
  report.record = current.p.record || 0;
  const pressed = (id) => $(id).getAttribute("aria-pressed") === "true";
  $("reallyBad").click();
  await until("it is anomalous", () => pressed("reallyBad"));
  $("reallyGood").click();
  await until("it is good", () => pressed("reallyGood") && !pressed("reallyBad"));
  report.kept = $("kept").textContent;
  report.table = table();
  drop(new TextEncoder().encode("hello"), "broken.png");
  await until("the problem is named", () => !$("problem").hidden);
  report.problem = $("problem").textContent;
  return report;
}

// focused tells where the focus is, and whether anybody sees that.
function focused() {
  const at = document.activeElement, shown = at.classList.contains("quiet") ? at.nextElementSibling : at;
  const style = getComputedStyle(shown);
  return { id: at.id, visible: at === document.body || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) };
}

// mixed says whether the picture shown is the photograph (share 0) or the map's colours (1) and nothing else.
function mixed(share) {
  const { W, H, base, values } = scene, out = $("view").getContext("2d").getImageData(0, 0, W, H).data;
  const factor = 255 / highOf(cutOf(current));
  for (let i = 0; i < W * H; i++) {
    const c = 3 * Math.floor(Math.min(Math.max(values[i] * factor, 0), 255) + 0.5);
    for (let k = 0; k < 3; k++) if (out[4 * i + k] !== (share ? inferno[c + k] : base[4 * i + k])) return false;
  }
  return true;
}

// painted waits until the page is drawn as it is now.
const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));

// channels of a CSS colour: R, G, B of 0 to 255, and alpha.
function channels(colour) {
  const [r, g, b, a = 1] = colour.match(/[0-9.]+/g).map(Number);
  return [r, g, b, a];
}

// luminance and contrast are WCAG's.
function luminance(colour) {
  const [r, g, b] = channels(colour).slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

function groundOf(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (channels(colour)[3] === 1) return colour;
  }
  return "rgb(255, 255, 255)";
}

// faults lists what is hard to read, cut off, covered or too small to hit.
function faults() {
  const list = [], width = document.documentElement.clientWidth;
  const seen = (e) => e.checkVisibility() && e.getBoundingClientRect().width > 1;
  const nameOf = (e) => e.tagName.toLowerCase() + (e.id && "#" + e.id) + (e.className && "." + e.className) + " " + JSON.stringify(e.textContent.trim().slice(0, 20));
  for (const e of document.body.querySelectorAll("*")) {
    if (seen(e) && e.getBoundingClientRect().right > width + 1) list.push(nameOf(e) + ": reaches over the screen's edge");
    const text = Array.from(e.childNodes).some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim() !== "");
    if (!text || !seen(e) || e.matches("script, option, legend")) continue;
    const style = getComputedStyle(e);
    const inactive = e.matches(":disabled");
    if (!inactive && contrast(style.color, groundOf(e)) < 4.5) list.push(nameOf(e) + ": contrast " + contrast(style.color, groundOf(e)).toFixed(2));
    if (parseFloat(style.fontSize) < 13) list.push(nameOf(e) + ": letters of " + style.fontSize);
    if (e.scrollWidth > e.clientWidth + 1 && style.display !== "inline" && style.textOverflow !== "ellipsis") list.push(nameOf(e) + ": cut off");
  }
  const controls = Array.from(document.querySelectorAll("button, select, .button, input[type=range]")).filter(seen);
  for (const e of controls) {
    const a = e.getBoundingClientRect();
    if (a.height < 32) list.push(nameOf(e) + ": " + a.height + " pixels high");
    for (const other of controls) {
      const b = other.getBoundingClientRect();
      if (e !== other && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) list.push(nameOf(e) + " overlaps " + nameOf(other));
    }
  }
  return list;
}

const failures = [];
addEventListener("error", (e) => failures.push(e.message));
addEventListener("unhandledrejection", (e) => failures.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => failures.push("policy: " + e.blockedURI));
drive().catch((e) => ({ failed: String(e) })).then((report) =>
  fetch("report", { method: "POST", body: JSON.stringify({ ...report, failures }) }));

// cutOff tells how many pixels of the table of regions are out of sight, if it has a region of a large picture.
function cutOff() {
  const wide = document.querySelector(".wide");
  wide.hidden = false;
  $("regions").replaceChildren(row(10, "2048, 1536", "480 × 320", "120345", number(1.9617), number(1.4321)));
  const missing = wide.scrollWidth - wide.clientWidth;
  refresh();
  return missing;
}
