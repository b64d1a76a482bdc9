// The page: what the project holds, what is shown of it, and what a person does.

import { Editor } from "./editor.js";
import { decide, grey, readGrey, writeGrey } from "./pixels.js";

const $ = (id) => document.getElementById(id);
const BUSY_POLL = 400;
const IDLE_POLL = 5000;
const SAVE_AFTER = 250;
const SHOWN_FOR = 8000; // a message, and for each of its letters:
const READING = 60;

let state = { images: [], classes: [], class_ids: [], colors: [], learned: 0, thresholds: [], as_learned: [], formats: [], revision: -1 };
let job = { running: false, kind: "none" };
let current = null; // name of the image that is shown
let shown = null; // { version, maps, present } of it
let opened = null; // the same when it was opened, and whether it was an example
let classId = 1;
const known = new Map(); // name of an image -> the project's revision of the marks that this page has
let unsaved = false;
let saving = Promise.resolve();
let sending = 0; // masks on their way
let stopping = false; // asked, and not done yet
let starting = null; // the job that was asked for and is not confirmed yet
let saveTimer = 0;
let pollTimer = 0;
let lost = false;
let reported = Date.now() / 1000; // errors of jobs that began before were displayed already
let told = Date.now() / 1000; // when the job began whose findings were shown last

const editor = new Editor($("stage"), { changed: onPainted, grow: growRegion });

// ---- requests

// `conflict` is told when what is changed was changed in another window meanwhile.
async function ask(path, options = {}, conflict = say) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    if (!lost) say("The program does not answer. Is it still running? What you marked last may not be saved.");
    lost = true;
    return null;
  }
  lost = false;
  if (response.ok) return response;
  const text = await response.text();
  let line = text;
  try {
    line = JSON.parse(text).error;
  } catch {
    line = `The program failed (${response.status}).`;
  }
  if (response.status === 401) line = "Open this page by the whole link that svfseg app printed: it lets you in.";
  (response.status === 409 ? conflict : say)(line);
  return null;
}

const json = (method, body) => ({
  method,
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});
// A change of an image's marks names the marks that it was made on.
const change = (name, ...rest) => `${to(name, ...rest)}?revision=${known.get(name) ?? 0}`;
const to = (name, ...rest) => ["api/images", encodeURIComponent(name), ...rest].join("/");

async function poll() {
  clearTimeout(pollTimer);
  const response = await ask(`api/state?revision=${state.revision}`);
  if (response) {
    const fresh = await response.json();
    job = fresh.job;
    if (fresh.images) {
      state = fresh;
      render();
    }
    renderJob();
    if (!job.running && job.error && job.began > reported) {
      reported = job.began;
      say(job.error);
    }
    if (job.found && job.began > told) {
      told = job.began;
      job.found.forEach(say);
    }
  }
  pollTimer = setTimeout(poll, job.running ? BUSY_POLL : IDLE_POLL);
}

function say(line) {
  const note = document.createElement("p");
  const text = document.createElement("span");
  const close = document.createElement("button");
  text.textContent = line;
  close.textContent = "Close";
  close.addEventListener("click", () => note.remove());
  note.append(text, close);
  $("messages").append(note);
  leaveInTime(note, SHOWN_FOR + READING * line.length);
  while ($("messages").children.length > 3) $("messages").firstChild.remove();
}

// A message disappears by itself, but not while the pointer or the focus is on it.
function leaveInTime(note, milliseconds) {
  let timer = setTimeout(() => note.remove(), milliseconds);
  const hold = () => clearTimeout(timer);
  const go = () => (timer = setTimeout(() => note.remove(), milliseconds / 2));
  note.addEventListener("pointerenter", hold);
  note.addEventListener("focusin", hold);
  note.addEventListener("pointerleave", go);
  note.addEventListener("focusout", go);
}

// ---- images

const record = (name) => state.images.find((image) => image.name === name);
const isExample = (image) => image.marked.length > 0 || image.without;
const sureness = (image) => (image.found ? Math.min(...image.found.confidence) : 2);

const isEmpty = (image) => Boolean(image.found) && !image.found.present.some(Boolean);

function ordered() {
  if ($("sort").value === "added") return state.images;
  const rank = (image) => (isExample(image) ? 3 : sureness(image) - Number(isEmpty(image)));
  return [...state.images].sort((a, b) => rank(a) - rank(b));
}

// A picture's address changes with what is drawn on it.
function drawnAt(image) {
  const cuts = image.found && !isExample(image) ? state.thresholds.join("_") : "";
  return `${to(image.name, "drawn")}?version=${image.version}.${cuts}`;
}

function caption(image) {
  if (image.without) return ["not in this one", "example"];
  if (image.marked.length) return ["example", "example"];
  if (!image.found) return ["to do", ""];
  const nothing = isEmpty(image);
  const sure = sureness(image);
  const age = image.found.old ? ", before the last learning" : "";
  const text = `${nothing ? "not found" : "found"}, ${Math.round(100 * sure)} % sure${age}`;
  return [text, nothing || sure < 0.5 ? "doubt" : ""];
}

function renderList() {
  const list = $("images");
  const rows = new Map([...list.children].map((row) => [row.dataset.name, row]));
  const wanted = ordered().map((image) => {
    const row = rows.get(image.name) ?? newRow(image.name);
    const picture = row.querySelector("img");
    const address = drawnAt(image);
    if (picture.getAttribute("src") !== address) picture.src = address;
    const [text, kind] = caption(image);
    const small = row.querySelector("small");
    small.textContent = text;
    small.className = kind;
    const button = row.querySelector("button");
    button.setAttribute("aria-current", String(image.name === current));
    button.tabIndex = image.name === current ? 0 : -1; // the others by the keys , and .
    return row;
  });
  if (wanted.some((row, i) => list.children[i] !== row) || list.children.length !== wanted.length) {
    list.replaceChildren(...wanted);
  }
  $("none").hidden = state.images.length > 0;
}

function newRow(name) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  const picture = document.createElement("img");
  const title = document.createElement("span");
  row.dataset.name = name;
  button.type = "button";
  picture.alt = "";
  picture.loading = "lazy";
  title.textContent = name;
  button.append(picture, title, document.createElement("small"));
  button.addEventListener("click", () => open(name));
  row.append(button);
  return row;
}

async function addFiles(files) {
  const sent = [...files];
  let first = null;
  for (let at = 0; at < sent.length; at += 8) {
    const form = new FormData();
    sent.slice(at, at + 8).forEach((file) => form.append("images", file, file.name));
    if (sent.length > 8) $("status").textContent = `adding ${at} of ${sent.length} images`;
    const response = await ask("api/images", { method: "POST", body: form });
    if (!response) continue;
    const { added, problems } = await response.json();
    problems.forEach(say);
    first ??= added[0];
    await poll();
  }
  if (!current && first) await open(first);
  renderStatus();
}

async function open(name) {
  await editor.settled(); // a click belongs to the picture that was clicked
  editor.fill(); // an open polygon is closed rather than lost
  await flush();
  const image = record(name);
  if (!image) return;
  current = name;
  shown = null;
  renderList();
  const content = await contentOf(image);
  if (current !== name) return;
  take(image, content);
  sessionStorage.setItem("image", name);
  const [width, height] = image.work;
  $("hide").setAttribute("aria-pressed", "false");
  editor.open(to(name), name, width, height, content.ids);
  renderCurrent();
  document.querySelector('#images [aria-current="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// What is shown of an image from now on.
function take(image, content) {
  shown = content;
  opened = { ...content, example: isExample(image) };
  known.set(image.name, content.revision);
}

const colorOf = (id) => state.colors[(id - 1) % state.colors.length];
const placeOf = (id) => state.class_ids.indexOf(id);

// Ids of an image: what is marked, else what was found, and its probabilities.
async function contentOf(image) {
  const [width, height] = image.work;
  const content = { version: image.version, revision: image.revision, maps: null, ids: new Uint8Array(width * height) };
  if (image.marked.length) content.ids = (await readGrey(`${to(image.name, "mask")}?v=${image.version}`)) ?? content.ids;
  else if (image.found && !image.without) {
    content.present = image.found.present;
    content.classIds = image.found.class_ids;
    content.maps = await Promise.all(
      content.classIds.map((id) => readGrey(`${to(image.name, "found", id)}?v=${image.version}`)),
    );
    content.ids = decided(content);
  }
  return content;
}

const decided = ({ maps, classIds, present }) =>
  decide(maps, classIds, classIds.map((id) => state.thresholds[placeOf(id)] ?? 1), present);

async function stepImage(by) {
  const names = ordered().map((image) => image.name);
  const next = names[names.indexOf(current) + by];
  if (next) await open(next);
}

// ---- marks

function onPainted() {
  unsaved = true;
  clearTimeout(saveTimer);
  saveTimer = setTimeout(flush, SAVE_AFTER);
  renderStatus();
}

// Send what is painted; strokes that come meanwhile go with the next.
async function flush() {
  clearTimeout(saveTimer);
  if (unsaved && current && editor.ids) {
    unsaved = false;
    const [name, ids, width, height] = [current, editor.ids.slice(), editor.width, editor.height];
    sending += 1;
    saving = saving.then(async () => {
      const done = await send(name, ids, width, height);
      sending -= 1;
      if (done?.version > 0) known.set(name, done.version);
      if (name === current) {
        if (done) shown = { ...(done.asBefore ? opened : {}), version: done.version };
        else unsaved = true;
      }
      await poll();
      await refreshCurrent();
      renderStatus();
    });
  }
  await saving;
}

// Undone to its start an image is what it was; wiping out all that was found says that the class
// is not there.
async function send(name, ids, width, height) {
  let line = "";
  const conflict = (said) => (line = said);
  const undone = name === current && opened && !opened.example && !editor.past.length;
  const wiped = record(name)?.found && !ids.some(Boolean);
  const body = await writeGrey(ids, width, height);
  const painted = { method: "PUT", headers: { "Content-Type": "image/png" }, body };
  const write = () => {
    if (undone) return ask(change(name, "mask"), { method: "DELETE" }, conflict);
    if (wiped) return ask(change(name, "without"), json("PUT", true), conflict);
    return ask(change(name, "mask"), painted, conflict);
  };
  let done = await write();
  if (!done && line) {
    const question = `${line.replace(": reload the page", ".")}\n\nOK stores what you painted here in its place. Cancel drops that, and shows what is stored.`;
    const mine = window.confirm(question);
    await poll();
    if (!mine || !record(name)) return { version: -1 }; // it is loaded anew, as its version differs
    known.set(name, record(name).revision);
    done = await write();
  }
  return done && { ...(await done.json()), asBefore: undone };
}

async function growRegion(clicks) {
  const marks = { clicks: [], scribbles: [] };
  for (const { points, without } of clicks) {
    const thinned = points.filter((_, i) => i % Math.ceil(points.length / 60) === 0 || i === points.length - 1);
    const inside = thinned.map(([x, y]) => [
      Math.min(editor.width - 1, Math.max(0, x)),
      Math.min(editor.height - 1, Math.max(0, y)),
    ]);
    const kind = inside.length > 1 ? "scribbles" : "clicks";
    marks[kind].push({ points: kind === "clicks" ? inside[0] : inside, class: without ? 0 : classId });
  }
  $("status").textContent = "finding the region";
  const response = await ask(to(current, "grow"), json("POST", marks));
  const region = response ? await grey(await response.blob()) : null;
  renderStatus();
  return region;
}

async function accept() {
  const image = record(current);
  if (!image || isExample(image) || !shown?.maps) return;
  if (!editor.ids.some(Boolean)) return setWithout(true);
  onPainted();
  await flush();
}

// What is marked counts again when it is taken back.
async function setWithout(value) {
  await flush();
  if (await ask(change(current, "without"), json("PUT", value))) await reopen();
}

async function clearMarks() {
  await flush();
  if (record(current).marked.length && !window.confirm(`Remove all marks from ${current}?`)) return;
  if (await ask(change(current, "mask"), { method: "DELETE" })) await reopen();
}

async function reopen() {
  await poll();
  await open(current);
}

// ---- classes

function renderClasses() {
  if (placeOf(classId) < 0) classId = state.class_ids[0];
  editor.classId = classId;
  editor.paint(state.class_ids.map((id) => [id, colorOf(id)]));
  const list = $("classes");
  if (list.contains(document.activeElement) && list.children.length === state.classes.length) return;
  list.replaceChildren(
    ...state.classes.map((name, i) => {
      const id = state.class_ids[i];
      const row = document.createElement("li");
      const radio = document.createElement("input");
      const text = document.createElement("input");
      Object.assign(radio, { type: "radio", name: "class", value: id, checked: id === classId });
      radio.setAttribute("aria-label", `mark ${name}`);
      radio.style.accentColor = colorOf(id);
      radio.addEventListener("change", () => chooseClass(id));
      Object.assign(text, { type: "text", value: name, maxLength: 60, spellcheck: false });
      text.setAttribute("aria-label", `name of class ${i + 1}`);
      text.addEventListener("change", () => nameClass(id, text.value));
      text.addEventListener("keydown", (event) => event.key === "Enter" && text.blur());
      row.append(radio, text);
      if (state.classes.length > 1) {
        const remove = document.createElement("button");
        remove.type = "button";
        remove.textContent = "×";
        remove.setAttribute("aria-label", `remove class ${name}`);
        remove.addEventListener("click", () => removeClass(id));
        row.append(remove);
      }
      return row;
    }),
  );
}

function chooseClass(id) {
  if (placeOf(id) < 0) return;
  classId = id;
  editor.classId = id;
  document.querySelectorAll('#classes input[type="radio"]').forEach((radio) => (radio.checked = Number(radio.value) === id));
  renderThreshold();
}

// A change of the classes names the ones that it was made on.
const classes = (...rest) => `${["api/classes", ...rest].join("/")}?revision=${state.revision}`;

async function nameClass(id, name) {
  const names = [...state.classes];
  names[placeOf(id)] = name;
  await ask(classes(), json("PUT", names));
  state.revision = -1; // what was typed may not be what is kept
  await poll();
}

async function addClass() {
  await flush();
  let number = state.classes.length + 1;
  while (state.classes.includes(`thing ${number}`)) number += 1;
  const added = await ask(classes(), json("PUT", [...state.classes, `thing ${number}`]));
  await poll();
  if (!added) return;
  chooseClass(state.class_ids.at(-1));
  const texts = document.querySelectorAll('#classes input[type="text"]');
  texts[texts.length - 1].select();
}

async function removeClass(id) {
  await flush();
  const place = placeOf(id);
  const more = state.thresholds[place] === null ? "" : ", and everything that was learned and found";
  if (!window.confirm(`Remove the class ${state.classes[place]}, its marks${more}?`)) return;
  const removed = await ask(classes(id), { method: "DELETE" });
  await poll();
  if (removed && current) await open(current);
}

// ---- learning

// Shown as running at once; the next answer says what is so.
async function start(kind, path, options) {
  if (job.running || starting) return;
  starting = { running: true, kind };
  renderJob();
  await flush();
  await ask(`${path}?revision=${state.revision}`, options);
  starting = null;
  await poll();
}

function learn() {
  const how = { adapt: $("adapt").value, tile: $("tile").checked, empty: !$("always").checked };
  how.seconds = $("instant").checked ? 0 : 60;
  return start("learning", "api/learn", json("POST", how));
}

const outlineRest = () => start("outlining", "api/outline", { method: "POST" });

function renderJob() {
  const { running, done, of, kind } = starting ?? job;
  $("running").hidden = !running;
  $("learn").disabled = $("rest").disabled = running;
  stopping &&= running;
  $("stop").disabled = stopping;
  $("stop").textContent = stopping ? `Stopping after this ${kind === "learning" ? "step" : "image"} …` : "Stop";
  if (!running) return;
  $("progress").value = of ? done / of : 0;
  if (!of) $("progress").removeAttribute("value");
  const began = job.phase ?? job.began;
  const seconds = Math.max(0.1, Date.now() / 1000 - began);
  const left = done ? Math.ceil((seconds / done) * (of - done)) : null;
  const unit = kind === "learning" ? "steps" : "images";
  const speed = done && kind === "outlining" ? `, ${(done / seconds).toFixed(1)} images/s` : "";
  $("left").textContent = of
    ? `${kind}: ${done} of ${of} ${unit}${speed}${left === null ? "" : `, ${left} s left`}`
    : `${kind} …`;
}

// ---- what is shown

function render() {
  document.title = `${state.name} – svfseg`;
  $("project").textContent = state.name;
  if (current && !record(current)) {
    current = null;
    shown = null;
    editor.reset();
  }
  renderClasses();
  renderList();
  renderCurrent();
  const formats = $("format");
  if (formats.children.length !== state.formats.length) {
    formats.replaceChildren(...state.formats.map((name) => new Option(name, name)));
  }
  const counts = state.classes.map((name, i) => {
    const count = state.images.filter((image) => image.marked.includes(state.class_ids[i])).length;
    return `${name}: ${count}`;
  });
  const without = state.images.filter((image) => image.without).length;
  $("examples").textContent = `Examples: ${counts.join(", ")}${without ? `; without: ${without}` : ""}`;
  renderOutcome();
  $("stage").classList.toggle("empty", !state.images.length);
  const answered = state.images.some((image) => image.found || image.marked.length);
  $("export").disabled = !answered;
  $("task").disabled = !state.learned;
  const last = sessionStorage.getItem("image");
  if (!current && state.images.length) open(record(last) ? last : state.images[0].name);
  else refreshCurrent();
}

// What the last learning came to.
function renderOutcome() {
  const asked = state.images.filter((image) => image.found && !isExample(image));
  const empty = asked.filter(isEmpty).length;
  const doubtful = asked.filter((image) => !isEmpty(image) && sureness(image) < 0.5).length;
  const old = state.images.filter((image) => !isExample(image) && (image.found?.old ?? true)).length;
  const parts = [`found in ${asked.length - empty}`, `nothing in ${empty}`];
  if (doubtful) parts.push(`less than 50 % sure in ${doubtful}`);
  if (old) parts.push(`${old} not outlined yet`);
  $("outcome").textContent = state.learned ? `${parts.join(", ")}.` : "";
}

// An answer that came, or an older one replaced, while its image was looked at.
async function refreshCurrent() {
  const image = current && record(current);
  if (!image || !shown || unsaved || sending || shown.version === image.version) return;
  const fresh = await contentOf(image);
  if (current !== image.name || unsaved || sending || editor.stroke) return;
  take(image, fresh);
  editor.show(fresh.ids);
  renderCurrent();
}

function renderCurrent() {
  const image = current && record(current);
  const example = image && isExample(image);
  $("accept").disabled = !image || example || !image.found;
  $("without").disabled = !image;
  $("without").setAttribute("aria-pressed", String(Boolean(image?.without)));
  $("clear").disabled = !example;
  $("remove").disabled = !image;
  const names = ordered().map(({ name }) => name);
  $("previous").disabled = names.indexOf(current) <= 0;
  $("next").disabled = !image || current === names.at(-1);
  renderThreshold();
  renderStatus();
}

function renderThreshold() {
  const value = state.thresholds[placeOf(classId)] ?? null;
  $("which").textContent = state.classes[placeOf(classId)] ?? "";
  $("threshold").disabled = value === null;
  if (document.activeElement !== $("threshold")) $("threshold").value = value ?? 0.5;
  renderLevel();
}

function renderLevel() {
  const place = placeOf(classId);
  const [value, learned] = [state.thresholds[place] ?? null, state.as_learned[place] ?? null];
  $("level").textContent = value === null ? "" : value.toFixed(2);
  $("learned").hidden = learned === null || Math.abs(learned - value) < 0.005;
  $("learned").textContent = learned === null ? "" : `Back to ${learned.toFixed(2)}, as learned`;
}

function renderStatus() {
  const image = current && record(current);
  if (!image) return ($("status").textContent = "");
  const [text] = caption(image);
  const state = unsaved || sending ? "saving" : text;
  $("status").textContent = `${image.name}, ${image.width}×${image.height}: ${state}`;
}

function moveThreshold() {
  state.thresholds[placeOf(classId)] = Number($("threshold").value);
  renderLevel();
  if (shown?.maps && !unsaved) editor.show(decided(shown));
}

async function resetThreshold() {
  state.thresholds[placeOf(classId)] = state.as_learned[placeOf(classId)];
  renderThreshold();
  if (shown?.maps && !unsaved) editor.show(decided(shown));
  await keepThreshold();
}

async function keepThreshold() {
  if (await ask(`api/thresholds/${classId}`, json("PUT", state.thresholds[placeOf(classId)]))) await poll();
}

function chooseTool(tool) {
  editor.tool = tool;
  editor.corners = [];
  if (editor.ids) editor.draw();
  document.querySelectorAll("[data-tool]").forEach((button) => {
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  });
}

function hide() {
  if (!editor.ids) return;
  editor.toggle();
  $("hide").setAttribute("aria-pressed", String(editor.canvas.hidden));
}

function resizeBrush(radius) {
  editor.radius = Math.min(100, Math.max(1, radius));
  $("radius").value = editor.radius;
  if (editor.ids) editor.draw();
}

async function download(path) {
  await flush();
  const response = await ask(path);
  if (!response) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  const named = /filename\*=UTF-8''([^;]+)/.exec(response.headers.get("Content-Disposition") ?? "");
  link.download = named ? decodeURIComponent(named[1]) : "svfseg";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// ---- buttons and keys

document.querySelectorAll("[data-tool]").forEach((button) => {
  button.addEventListener("click", () => chooseTool(button.dataset.tool));
});
const clicks = {
  add: () => $("files").click(),
  undo: () => editor.undo(),
  redo: () => editor.redo(),
  in: () => editor.zoom(1.4),
  out: () => editor.zoom(1 / 1.4),
  fit: () => editor.ids && editor.fit(),
  hide,
  previous: () => stepImage(-1),
  next: () => stepImage(1),
  accept,
  without: () => setWithout(!record(current).without),
  clear: clearMarks,
  remove: async () => {
    const name = current;
    if (!window.confirm(`Remove ${name} and its marks from the project?`)) return;
    unsaved = false;
    if (await ask(change(name), { method: "DELETE" })) await poll();
  },
  more: addClass,
  learned: resetThreshold,
  learn,
  rest: outlineRest,
  skip: () => $("stage").focus(),
  stop: () => {
    stopping = true;
    renderJob();
    return ask("api/stop", { method: "POST" });
  },
  export: () => download(`api/export?format=${$("format").value}`),
  task: () => download("api/task"),
  help: () => $("keys").showModal(),
};
Object.entries(clicks).forEach(([id, act]) => $(id).addEventListener("click", act));
$("files").addEventListener("change", async () => {
  const files = [...$("files").files];
  $("files").value = "";
  await addFiles(files);
});
$("sort").addEventListener("change", () => {
  renderList();
  const [first] = ordered();
  if (first) open(first.name);
});
$("radius").addEventListener("input", () => resizeBrush(Number($("radius").value)));
$("threshold").addEventListener("input", moveThreshold);
$("threshold").addEventListener("change", keepThreshold);

const keys = {
  h: hide,
  b: () => chooseTool("brush"), p: () => chooseTool("polygon"),
  c: () => chooseTool("grow"), v: () => chooseTool("shrink"), e: () => chooseTool("erase"),
  "[": () => resizeBrush(editor.radius / 1.25 - 0.2), "]": () => resizeBrush(editor.radius * 1.25 + 0.2),
  z: () => editor.undo(), y: () => editor.redo(),
  "+": () => editor.zoom(1.4), "=": () => editor.zoom(1.4), "-": () => editor.zoom(1 / 1.4),
  0: () => editor.ids && editor.fit(), ",": () => stepImage(-1), ".": () => stepImage(1),
  x: accept, n: () => current && setWithout(!record(current).without), l: learn,
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches('input[type="text"], select') || $("keys").open;
  if (typing || event.altKey) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") (event.shiftKey ? editor.redo() : editor.undo());
    else return;
  } else if (/^[1-9]$/.test(key)) chooseClass(state.class_ids[Number(key) - 1]);
  else if (keys[key]) keys[key]();
  else return;
  event.preventDefault();
});

const body = document.body;
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => event.relatedTarget ?? body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  body.classList.remove("dropping");
  addFiles(event.dataTransfer.files);
});
window.addEventListener("beforeunload", (event) => {
  if (!unsaved) return;
  flush();
  event.preventDefault();
});

chooseTool("brush");
poll();
