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

const shown = () => ({
  verdict: $("verdict").textContent, score: $("score").textContent, threshold: $("limit").textContent,
  history: $("history").children.length, label: $("view").getAttribute("aria-label"),
  regions: regionsOf(current, cutOf(current)).map((r) => [r.left, r.top, r.right - r.left, r.bottom - r.top]),
});

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
  drop(new TextEncoder().encode("hello"), "broken.png");
  await until("the problem is named", () => !$("problem").hidden);
  report.problem = $("problem").textContent;
  return report;
}

const failures = [];
addEventListener("error", (e) => failures.push(e.message));
addEventListener("unhandledrejection", (e) => failures.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => failures.push("policy: " + e.blockedURI));
drive().catch((e) => ({ failed: String(e) })).then((report) =>
  fetch("report", { method: "POST", body: JSON.stringify({ ...report, failures }) }));
