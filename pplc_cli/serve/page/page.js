"use strict";
// Items are pictures with their answers. All texts from elsewhere (labels, file names) go through textContent.
const AT_ONCE = 4; // requests
const PICTURE = /\.(jpe?g|jpe|jfif|png|bmp|dib|tiff?|webp|gif|hei[cf]|avif)$/i;
const $ = (id) => document.getElementById(id);
const items = [];
let models = [], server = {}, current = null, running = 0, began = 0, heatShown = false;

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const percent = (score) => `${(100 * score).toFixed(1)} %`;
const model = () => models.find((one) => one.name === $("model").value) || models[0];

// -- answers

function add(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || PICTURE.test(file.name));
  if (!pictures.length) {
    $("status").textContent = text("noPictures");
    return;
  }
  if (!running) began = performance.now();
  const first = items.length;
  for (const file of pictures) {
    const name = file.webkitRelativePath || file.name || "picture";
    items.push({ file, name, url: URL.createObjectURL(file), answer: null, error: "", label: "", number: items.length });
  }
  draw();
  if (pictures.length === 1) open(items[first]);
  while (running < Math.min(AT_ONCE, waiting().length)) work();
}

const waiting = () => items.filter((item) => !item.answer && !item.error && !item.asked);

async function work() {
  running++;
  for (let item = waiting()[0]; item; item = waiting()[0]) {
    item.asked = true;
    try {
      if (item.file.size > server.max_mb * 1e6) throw new Failure(text("tooLarge", { mb: server.max_mb }));
      const response = await send("/predict", form(item, model().name, { top_k: 5 }));
      const found = await response.json();
      item.answer = { ...found.predictions[0], ms: found.ms };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      item.error = error.message;
    }
    drawCard(item);
    if (item === current) drawDetail();
    drawStatus();
  }
  running--;
  if (!running) draw();
}

function labelOf(item) {
  if (item.label) return item.label;
  if (item.error) return text("failed");
  if (!item.answer) return "…";
  return item.answer.unknown ? text("unknown") : item.answer.label;
}

const scoreOf = (item) => (item.answer ? item.answer.score : -1);

// -- the grid

function draw() {
  $("tools").hidden = !items.length;
  const labels = new Map();
  for (const item of items) labels.set(labelOf(item), (labels.get(labelOf(item)) || 0) + 1);
  const chosen = $("filter").value;
  const options = [make("option", { value: "", textContent: text("all", { count: items.length }) })];
  for (const label of [...labels.keys()].sort()) {
    options.push(make("option", { value: label, textContent: `${label} (${labels.get(label)})` }));
  }
  $("filter").replaceChildren(...options);
  $("filter").value = labels.has(chosen) ? chosen : "";
  $("grid").replaceChildren(...shown().map((item) => (item.card ??= card(item))));
  items.forEach(drawCard);
  drawStatus();
}

function shown() {
  const orders = {
    added: (a, b) => a.number - b.number,
    down: (a, b) => scoreOf(b) - scoreOf(a),
    up: (a, b) => scoreOf(a) - scoreOf(b),
    name: (a, b) => a.name.localeCompare(b.name),
  };
  const label = $("filter").value;
  return items.filter((item) => !label || labelOf(item) === label).sort(orders[$("sort").value]);
}

function card(item) {
  const image = make("img", { src: item.url, alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.classList.add("broken")); // a format that the browser cannot show
  const button = make("button", { type: "button" }, image, make("span", { className: "label" }),
    make("span", { className: "score" }), make("span", { className: "file", textContent: item.name }));
  button.addEventListener("click", () => open(item));
  return make("li", {}, button);
}

function drawCard(item) {
  if (!item.card) return;
  const [label, score] = item.card.querySelectorAll(".label, .score");
  label.textContent = labelOf(item);
  label.classList.toggle("failed", Boolean(item.error) || Boolean(item.answer?.unknown && !item.label));
  label.classList.toggle("right", Boolean(item.label));
  score.textContent = item.label ? text("corrected") : item.error || (item.answer ? percent(item.answer.score) : "");
  const button = item.card.firstChild;
  button.setAttribute("aria-current", item === current);
  button.setAttribute("aria-label", text("current", { name: item.name, answer: `${label.textContent} ${score.textContent}` }));
}

function drawStatus() {
  const done = items.filter((item) => item.answer || item.error).length;
  if (!items.length) $("status").textContent = "";
  else if (done < items.length) $("status").textContent = text("waiting", { done, all: items.length });
  else $("status").textContent = text("done", { count: done, seconds: ((performance.now() - began) / 1000).toFixed(1) });
}

// -- one picture

function open(item) {
  const before = current;
  current = item;
  heatShown = false;
  if (before) drawCard(before);
  drawCard(item);
  $("detail").hidden = false;
  $("kept").textContent = "";
  $("new").value = "";
  drawDetail();
  $("detail").focus({ preventScroll: matchMedia("(min-width: 50rem)").matches });
}

function close() {
  if (!current) return;
  const item = current;
  current = null;
  $("detail").hidden = true;
  drawCard(item);
  item.card.firstChild.focus();
}

function drawDetail() {
  const item = current, answer = item.answer;
  $("detail-title").textContent = item.name;
  if (!heatShown) $("big").src = item.url;
  $("big").alt = item.name;
  $("answer").className = item.error || answer?.unknown ? "failed" : "";
  $("answer").textContent = item.error || "";
  $("bars").replaceChildren();
  $("set").textContent = "";
  if (answer) {
    $("answer").textContent = answer.unknown ? text("answerUnknown") : text("answer", { label: answer.label, score: percent(answer.score) });
    $("bars").replaceChildren(...answer.top.map((one) => make("li", {},
      make("progress", { max: 1, value: one.score, ariaHidden: "true" }),
      make("span", { textContent: one.label }), make("span", { textContent: percent(one.score) }))));
    const many = answer.set && answer.set.length > 1 ? `${text("labelSet", { labels: answer.set.join(", ") })}. ` : "";
    $("set").textContent = many + text("took", { ms: answer.ms.toFixed(1) });
  }
  $("heat").hidden = !model().heat_maps || !answer;
  $("heat").textContent = text(heatShown ? "heatOff" : "heat");
  $("heat").setAttribute("aria-pressed", heatShown);
  $("correct").hidden = Boolean(item.error) || !answer;
  $("keeps").textContent = text(server.collect ? "keeps" : "keepsNot");
  $("new").disabled = !server.collect;
  $("correct").querySelector("[type=submit]").disabled = !server.collect;
  // The most probable labels have the keys 1 to 9.
  const labels = answer ? [...new Set([...answer.top.map((one) => one.label), ...model().labels])].slice(0, 60) : [];
  $("labels").replaceChildren(...labels.map((label, index) => {
    const button = make("button", { type: "button", className: "second", disabled: !server.collect });
    button.textContent = index < 9 ? `${index + 1} ${label}` : label;
    button.setAttribute("aria-pressed", item.label === label);
    button.addEventListener("click", () => correct(label));
    return button;
  }));
}

async function correct(label) {
  const item = current;
  if (!label.trim() || !server.collect) return;
  try {
    const response = await send("/correct", form(item, model().name, { label }));
    const found = await response.json();
    item.label = found.label;
    if (item === current) {
      drawDetail();
      $("kept").textContent = text(found.new_class ? "keptNew" : "kept", { label: found.label, count: found.kept });
    }
    draw();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    $("kept").textContent = error.message;
  }
}

async function heat() {
  const item = current;
  heatShown = !heatShown;
  if (heatShown && !item.heat) {
    $("heat").disabled = true;
    try {
      const response = await send("/explain", form(item, model().name));
      item.heat = URL.createObjectURL(await response.blob());
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      heatShown = false;
      $("set").textContent = error.message;
    }
    $("heat").disabled = false;
  }
  if (item !== current) return;
  drawDetail();
  if (heatShown) $("big").src = item.heat;
}

// -- CSV

function cell(value) {
  const words = String(value ?? "");
  const safe = /^'*[=+\-@\t\r\n]/.test(words) ? `'${words}` : words; // a spreadsheet would run it as a formula
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function saveCsv() {
  const rows = [["name", "label", "score", "corrected", "error"]];
  for (const item of shown()) {
    const answer = item.answer || {};
    rows.push([item.name, answer.label, answer.score, item.label, item.error]);
  }
  const lines = rows.map((row) => row.map(cell).join(",")).join("\r\n");
  const url = URL.createObjectURL(new Blob(["\ufeff", lines, "\r\n"], { type: "text/csv" }));
  make("a", { href: url, download: "pplc.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// -- the camera

async function openCamera() {
  $("camera-dialog").showModal();
  const can = window.isSecureContext && navigator.mediaDevices;
  $("video").hidden = $("shoot").hidden = !can;
  $("camera-text").textContent = can ? "" : text("insecure");
  if (!can) return;
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await $("video").play();
  } catch (error) {
    $("video").hidden = $("shoot").hidden = true;
    $("camera-text").textContent = text("noCamera", { reason: error.message });
  }
}

function closeCamera() {
  for (const track of $("video").srcObject?.getTracks() || []) track.stop();
  $("video").srcObject = null;
}

function shoot() {
  const video = $("video");
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => add([new File([blob], `camera ${new Date().toLocaleTimeString()}.jpg`, { type: "image/jpeg" })]), "image/jpeg", 0.92);
  $("camera-dialog").close();
}

// -- dropped files and folders

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  async function walk(entry) {
    if (entry.isFile) return void files.push(await new Promise((done, failed) => entry.file(done, failed)));
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const one of some) await walk(one);
    }
  }
  for (const entry of entries) await walk(entry);
  return files;
}

// -- keys: a number corrects the open picture, arrows go on, Escape closes

function key(event) {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const cards = shown();
  const here = current ? cards.indexOf(current) : cards.findIndex((item) => item.card?.contains(event.target));
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && cards.length) {
    const next = cards[Math.min(Math.max(here + step, 0), cards.length - 1)];
    if (current) open(next);
    else next.card.firstChild.focus();
    event.preventDefault();
  } else if (current && /^[1-9]$/.test(event.key)) {
    $("labels").children[Number(event.key) - 1]?.click();
  } else if (current && event.key === "n" && server.collect) {
    $("new").focus();
    event.preventDefault();
  } else if (event.key === "Escape") {
    close();
  }
}

// -- start

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  $("language").textContent = text("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  $("privacy").textContent = text(server.collect ? "privacyKept" : "privacy");
  const one = model();
  if (one) {
    const about = text("about", { classes: one.labels.length, network: one.network || "?" });
    $("about").textContent = about + (one.val_top1 ? text("accuracy", { top1: percent(one.val_top1) }) : "");
  }
  draw();
  if (current) drawDetail();
}

async function start() {
  translate();
  $("choose").onclick = () => $("files").click();
  $("folder").onclick = () => $("directory").click();
  $("camera").onclick = openCamera;
  $("pick").onclick = () => { $("camera-dialog").close(); $("capture").click(); };
  for (const id of ["files", "directory", "capture"]) {
    $(id).onchange = () => { add($(id).files); $(id).value = ""; };
  }
  $("shoot").onclick = shoot;
  $("camera-close").onclick = () => $("camera-dialog").close();
  $("camera-dialog").onclose = closeCamera;
  $("filter").onchange = $("sort").onchange = draw;
  $("csv").onclick = saveCsv;
  $("clear").onclick = () => {
    current = null;
    $("detail").hidden = true;
    for (const item of items.splice(0)) URL.revokeObjectURL(item.url);
    draw();
  };
  $("close").onclick = close;
  $("heat").onclick = heat;
  $("correct").onsubmit = (event) => { event.preventDefault(); correct($("new").value); };
  $("model").onchange = translate;
  $("language").onclick = () => { language = language === "zh" ? "en" : "zh"; translate(); };
  document.addEventListener("keydown", key);
  document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) add(event.clipboardData.files); });
  document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    add(await dropped(event.dataTransfer));
  });
  try {
    server = await (await send("/models")).json();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    $("status").textContent = error.message;
    return;
  }
  models = server.models;
  $("model").replaceChildren(...models.map((one) => make("option", { value: one.name, textContent: one.name })));
  document.title = `${models[0].name} – pplc`;
  translate();
}

start();
