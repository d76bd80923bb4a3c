
"use strict";
const $ = (id) => document.getElementById(id);
let data, parent, text, answer, terminal, tokens, logprob, reward, visits, value, samples, drawn, dead, critique, scored, died;
let count = 0, chosen = null, born = 0, live = false;
let children, depth, size, cost, spent, best, mostVisits, mostTokens, mostCost;
const KINDS = {
  root: ["", ""], chosen: ["★", ""], answer: ["◆", "answer"], dead: ["✕", "dead end"], open: ["○", ""], step: ["", "followed"],
};

function load(found) {
  data = found, chosen = found.chosen, live = Boolean(found.live);
  ({ parent, text, answer, terminal, tokens, logprob, reward, visits, value, samples, drawn, dead, critique, scored, died } = found.columns);
  KINDS.chosen[1] = live ? "best answer so far" : found.told ? "chosen answer" : "best answer";
  KINDS.open[1] = live ? "not followed yet" : "not followed";
  grown();
}

// What the tree says: ids are in order of creation, so a parent comes before its children.

function grown() {
  count = parent.length;
  children = parent.map(() => []), depth = parent.map(() => 0), size = parent.map(() => 1);
  cost = tokens.map((n) => n || 0), spent = cost.slice();  // tokens of the subtree, and of the path
  for (let i = 1; i < count; i++) {
    children[parent[i]].push(i);
    depth[i] = depth[parent[i]] + 1;
    spent[i] += spent[parent[i]];
  }
  for (let i = count - 1; i > 0; i--) {
    size[parent[i]] += size[i];
    cost[parent[i]] += cost[i];
  }
  best = new Set();
  for (let i = chosen; i !== null; i = parent[i]) best.add(i);
  mostVisits = most(visits), mostTokens = most(tokens), mostCost = most(cost);
}

// In a replay scores and dead ends come when they came in the search, where that is known: after so many nodes.
const due = (when, i) => born >= count || !when || when[i] === null || when[i] <= born;
const known = (i) => reward[i] !== null && due(scored, i);
const lost = (i) => dead[i] !== null && due(died, i);
const kind = (i) => !i ? "root" : i === chosen ? "chosen" : lost(i) ? "dead" : terminal[i] ? "answer"
  : children[i].length ? "step" : "open";
const line = (i) => (i ? text[i] : data.question).replace(/\s+/g, " ").trim();
const number = (x, digits = 2) => typeof x === "number" ? x.toFixed(digits).replace(/^-(0\.0+)$/, "$1") : "–";
const many = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

// What a colour and a bar mean: a share of 0 to 1, or null where it is unknown.

const most = (list) => list.reduce((a, b) => Math.max(a, b || 0), 1);
const MEASURES = {
  reward: ["reward", (i) => known(i) ? reward[i] : null, () => "1"],
  value: ["value", (i) => visits[i] ? value[i] : null, () => "1"],
  visits: ["visits", (i) => visits[i] ? Math.log1p(visits[i]) / Math.log1p(mostVisits) : null, () => many(mostVisits, "visit")],
  tokens: ["tokens of the step", (i) => tokens[i] === null ? null : tokens[i] / mostTokens, () => many(mostTokens, "token")],
  cost: ["tokens from here on", (i) => Math.log1p(cost[i]) / Math.log1p(mostCost), () => many(mostCost, "token")],
};
let measure = MEASURES.reward;
const share = (i) => { const x = measure[1](i); return x === null ? null : Math.min(1, Math.max(0, x)); };

// Layout: a column for each depth, a row for each leaf; a node may be as high as the rows of its subtree.

const folded = new Set();
let first = new Float64Array(0), last = first, placed = new Uint8Array(0), levels = [], rows = 0;

function layout() {
  const stack = [0], order = [], room = 2 * count;
  if (placed.length < count) first = new Float64Array(room), last = new Float64Array(room), placed = new Uint8Array(room);
  levels = [], rows = 0, placed.fill(0);
  while (stack.length) {
    const i = stack.pop();
    order.push(i), placed[i] = 1, (levels[depth[i]] ??= []).push(i);
    if (folded.has(i) || !children[i].length) first[i] = rows++, last[i] = rows;
    else for (let k = children[i].length - 1; k >= 0; k--) stack.push(children[i][k]);
  }
  for (const i of order.reverse()) {
    if (folded.has(i) || !children[i].length) continue;
    first[i] = first[children[i][0]], last[i] = last[children[i].at(-1)];
  }
  dirty();
}

function after(level, row) {  // index of the first node that ends below a row
  let low = 0, high = level.length;
  while (low < high) {
    const half = (low + high) >> 1;
    if (last[level[half]] <= row) low = half + 1; else high = half;
  }
  return low;
}

const readable = (b) => b.h >= 10.5 && b.w >= 40;
const middle = (i) => (first[i] + last[i]) / 2;

// The view: where row 0 and column 0 are on the screen, and the size of both in pixels.

const canvas = $("tree"), ctx = canvas.getContext("2d");
const PAD = 24, ROW = 54, CARD = 44, COLUMN = 300;
let view = { x: PAD, y: PAD, kx: COLUMN, ky: ROW }, width = 0, height = 0, moving = 0, waiting = false, following = true;
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const fitX = () => (width - 2 * PAD) / levels.length, fitY = () => (height - 2 * PAD) / rows;

function box(i) {
  const gap = clamp(view.kx * 0.15, 1, 40), room = (last[i] - first[i]) * view.ky;
  const h = Math.max(0.7, Math.min(CARD, room * 0.86)), y = view.y + middle(i) * view.ky;
  return { x: view.x + depth[i] * view.kx, y: y - h / 2, w: view.kx - gap, h, mid: y };
}

function whole(narrow = 0) {
  const kx = clamp(fitX(), narrow, COLUMN), ky = Math.min(fitY(), ROW);
  const x = Math.max(PAD, (width - kx * levels.length) / 2);
  return { x, y: Math.max(PAD, (height - ky * rows) / 2), kx, ky };
}

function zoom(factor, x = width / 2, y = height / 2) {
  following = false;
  const kx = clamp(view.kx * factor, Math.min(COLUMN, fitX()) / 2, COLUMN * 1.4);
  const ky = clamp(view.ky * factor, Math.min(ROW, fitY()) / 2, ROW);
  view = { kx, ky, x: x - (x - view.x) * kx / view.kx, y: y - (y - view.y) * ky / view.ky };
  dirty();
}

function fit() {
  move(whole());
  following = true;
}

function move(to) {
  const from = view, start = performance.now(), mine = ++moving;
  following = false;
  const long = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 220;
  requestAnimationFrame(function tick(now) {
    if (mine !== moving) return;
    const t = long ? clamp((now - start) / long, 0, 1) : 1, s = t * (2 - t);
    view = Object.fromEntries(Object.keys(to).map((k) => [k, from[k] + (to[k] - from[k]) * s]));
    dirty();
    if (t < 1) requestAnimationFrame(tick);
  });
}

function reveal(i) {
  let hidden = false;
  for (let p = parent[i]; p !== null; p = parent[p]) hidden = folded.delete(p) || hidden;
  if (hidden) layout();
  if (i >= born) play(false), setTime(count);
  const kx = Math.max(view.kx, 220), ky = box(i).h < 16 ? ROW * 0.8 : view.ky;
  const b = box(i), inside = b.x >= 0 && b.x + b.w <= width && b.y >= 0 && b.y + b.h <= height;
  if (inside && kx === view.kx && ky === view.ky) return dirty();
  move({ kx, ky, x: clamp(view.x + depth[i] * view.kx, PAD, Math.max(PAD, width - kx)) - depth[i] * kx,
    y: clamp(b.mid, height * 0.3, height * 0.7) - middle(i) * ky });
}

// Drawing, once a frame at most.

let css = {}, selected = 0, over = null, hits = [], hit = new Set();

function colours() {
  const probe = document.body.appendChild(document.createElement("i")), style = getComputedStyle(probe);
  for (const name of ["page", "card", "ink", "dim", "rule", "edge", "focus", "hit", "low", "mid", "high", "unknown"]) {
    probe.style.color = `var(--${name})`;
    css[name] = style.color;
  }
  css.font = style.fontFamily;
  const rgb = ["low", "mid", "high"].map((name) => css[name].match(/[\d.]+/g).map(Number));
  css.ramp = Array.from({ length: 101 }, (_, n) => {
    const [a, b, s] = n < 50 ? [rgb[0], rgb[1], n / 50] : [rgb[1], rgb[2], (n - 50) / 50];
    return `rgb(${[0, 1, 2].map((k) => Math.round(a[k] + (b[k] - a[k]) * s))})`;
  });
  probe.remove();
  dirty();
}

function dirty() {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

function draw() {
  waiting = false;
  ctx.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  ctx.textBaseline = "middle";
  const seen = [];
  for (const level of levels) {
    for (let k = after(level, -view.y / view.ky); k < level.length && view.y + first[level[k]] * view.ky < height; k++)
      if (level[k] < born) seen.push(level[k]);
  }
  edges(levels.flat().filter((i) => i && i < born && !best.has(i)), css.edge, 1, clamp(view.ky / 8, 0.15, 1));
  edges([...best].filter((i) => i && placed[i] && i < born), css.ink, 3, 1);
  for (const i of seen) card(i);
}

function edges(ids, colour, thick, alpha) {
  ctx.beginPath();
  for (const i of ids) {
    const a = box(parent[i]), b = box(i), x = a.x + a.w, half = (b.x - x) / 2;
    if (Math.max(a.mid, b.mid) < 0 || Math.min(a.mid, b.mid) > height || b.x < 0 || x > width) continue;
    ctx.moveTo(x, a.mid);
    ctx.bezierCurveTo(x + half, a.mid, x + half, b.mid, b.x, b.mid);
  }
  Object.assign(ctx, { strokeStyle: colour, lineWidth: thick, globalAlpha: alpha });
  ctx.stroke();
  ctx.globalAlpha = 1;
}

function card(i) {
  const b = box(i), what = kind(i), part = share(i), colour = part === null ? css.unknown : css.ramp[Math.round(part * 100)];
  if (b.x > width || b.x + b.w < 0) return;
  const faint = hit.size && !hit.has(i) ? 0.25 : what === "open" || what === "dead" ? 0.72 : 1;
  const legible = readable(b), round = Math.min(what === "chosen" || what === "answer" ? 14 : 5, b.h / 2, b.w / 2);
  const fill = (style, alpha, w = b.w, h = b.h) => { ctx.fillStyle = style, ctx.globalAlpha = alpha * faint, ctx.fillRect(b.x, b.y + b.h - h, w, h); };
  if (b.h < 4) fill(colour, 0.35), fill(colour, 1, b.w * (part ?? 0));
  else {
    ctx.save();
    ctx.beginPath(), ctx.roundRect(b.x, b.y, b.w, b.h, round), ctx.clip();
    fill(css.card, 1 / faint), fill(colour, 0.16), fill(colour, 0.9, b.w * (part ?? 0), legible ? Math.min(4, b.h / 5) : b.h);
    ctx.restore();
    ctx.globalAlpha = faint;
    ctx.setLineDash(what === "dead" ? [6, 3] : what === "open" ? [1.5, 2.5] : []);
    outline(b, 0, round, best.has(i) ? css.ink : part === null ? css.edge : colour, best.has(i) ? 2 : 1);
    ctx.setLineDash([]);
  }
  ctx.globalAlpha = Math.max(faint, hit.size ? 0 : 0.9);
  if (legible) label(i, b, what);
  ctx.globalAlpha = 1;
  if (hit.has(i)) outline(b, 1, round, css.hit, 2);
  if (i === selected || i === over) outline(b, 3, round + 2, css.focus, i === selected ? 2.5 : 1.5);
  if (born < count && i === born - 1) outline(b, 5, round + 4, css.ink, 2);
  if (legible && children[i].length) knob(i, b);
}

function outline(b, away, round, colour, thick) {
  ctx.beginPath(), ctx.roundRect(b.x - away, b.y - away, b.w + 2 * away, b.h + 2 * away, round);
  Object.assign(ctx, { strokeStyle: colour, lineWidth: thick });
  ctx.stroke();
}

function label(i, b, what) {
  const two = b.h >= 36, y = b.y + b.h * (two ? 0.32 : 0.46), second = b.y + b.h * 0.67, left = b.x + 9;
  const right = b.x + b.w - (children[i].length ? 13 : 8), score = b.w < 76 || !known(i) ? "" : number(reward[i]);
  Object.assign(ctx, { font: `${best.has(i) ? 600 : 400} ${Math.min(12, b.h * 0.78)}px ${css.font}`, fillStyle: css.ink, textAlign: "right" });
  ctx.fillText(score, right, two ? second : y);
  const scored = score && ctx.measureText(score).width + 8;
  ctx.textAlign = "left";
  ctx.fillText(shortened(`${KINDS[what][0]} ${line(i)}`.trim(), right - left - (two ? 0 : scored)), left, y);
  if (!two) return;
  const notes = lost(i) ? [dead[i].replace(/\s+/g, " ")] : !i ? [many(count - 1, "step")] : [visits[i] && many(visits[i], "visit"),
    samples[i] > 1 && `drawn ${samples[i]} times`, tokens[i] && many(tokens[i], "token")];
  Object.assign(ctx, { font: `11px ${css.font}`, fillStyle: css.dim });
  ctx.fillText(shortened(notes.filter(Boolean).join(" · "), right - left - scored), left, second);
}

function shortened(words, room) {
  let low = 0, high = Math.min(words.length, 200);
  if (high === words.length && ctx.measureText(words).width <= room) return words;
  while (low < high) {
    const n = (low + high + 1) >> 1;
    if (ctx.measureText(words.slice(0, n) + "…").width <= room) low = n; else high = n - 1;
  }
  return low ? words.slice(0, low) + "…" : "";
}

function knob(i, b) {
  const shut = folded.has(i), words = shut ? `+${size[i] - 1}` : "–", r = Math.min(7, b.h / 2), x = b.x + b.w - r;
  ctx.font = `600 ${r * 1.5}px ${css.font}`;
  const w = Math.max(2 * r, ctx.measureText(words).width + r * 1.3);
  ctx.beginPath(), ctx.roundRect(x, b.mid - r, w, 2 * r, r);
  Object.assign(ctx, { fillStyle: shut ? css.ink : css.card, strokeStyle: shut ? css.ink : css.edge, lineWidth: 1 });
  ctx.fill(), ctx.stroke();
  Object.assign(ctx, { fillStyle: shut ? css.page : css.dim, textAlign: "center" });
  ctx.fillText(words, x + w / 2, b.mid + 0.5);
}

// Pointer: which node is there, and is it its knob?

function at(x, y) {
  const column = Math.floor((x - view.x) / view.kx), row = (y - view.y) / view.ky, level = levels[column] || [];
  const i = level[after(level, row)];
  if (i === undefined || i >= born || first[i] > row) return {};
  const b = box(i), knobbed = children[i].length && readable(b);
  if (knobbed && Math.abs(y - b.mid) < 11 && x > b.x + b.w - 9 && x < b.x + b.w + 24) return { i, knob: true };
  return x <= b.x + b.w && Math.abs(y - b.mid) <= Math.max(3, b.h / 2) ? { i } : {};
}

const pointers = new Map();
let travelled = 0;

canvas.addEventListener("pointerdown", (e) => {
  canvas.setPointerCapture(e.pointerId);
  pointers.set(e.pointerId, e), travelled = pointers.size > 1 ? 99 : 0, moving++;
});
canvas.addEventListener("pointermove", (e) => {
  const before = pointers.get(e.pointerId);
  if (!before) return hover(e);
  const dx = e.offsetX - before.offsetX, dy = e.offsetY - before.offsetY;
  travelled += Math.abs(dx) + Math.abs(dy);
  pointers.set(e.pointerId, e);
  if (travelled < 5) return;
  hover(null);
  canvas.classList.add("drag");
  following = false;
  view = { ...view, x: view.x + dx / pointers.size, y: view.y + dy / pointers.size };
  const other = [...pointers.values()].find((p) => p.pointerId !== e.pointerId);
  if (other) {
    const apart = (p) => Math.hypot(p.offsetX - other.offsetX, p.offsetY - other.offsetY) || 1;
    zoom(apart(e) / apart(before), (e.offsetX + other.offsetX) / 2, (e.offsetY + other.offsetY) / 2);
  }
  dirty();
});
const released = (e) => { pointers.delete(e.pointerId), canvas.classList.remove("drag"); };
canvas.addEventListener("pointercancel", released);
canvas.addEventListener("pointerup", (e) => {
  released(e);
  const { i, knob } = travelled < 5 ? at(e.offsetX, e.offsetY) : {};
  if (knob) toggle(i);
  else if (i !== undefined) select(i);
});
canvas.addEventListener("dblclick", (e) => {
  const { i, knob } = at(e.offsetX, e.offsetY);
  if (i !== undefined && !knob) toggle(i);
});
canvas.addEventListener("pointerleave", () => hover(null));
canvas.addEventListener("wheel", (e) => {
  if (self !== top && document.activeElement !== canvas && !e.ctrlKey) return;  // a notebook scrolls on until the tree is clicked
  e.preventDefault(), moving++, hover(null);
  const unit = e.deltaMode ? 20 : 1;
  if (e.shiftKey) following = false, view = { ...view, x: view.x - (e.deltaX || e.deltaY) * unit }, dirty();
  else zoom(Math.exp(-e.deltaY * unit * (e.ctrlKey ? 0.01 : 0.0018)), e.offsetX, e.offsetY);
}, { passive: false });

function hover(e) {
  const { i, knob } = e ? at(e.offsetX, e.offsetY) : {}, tip = $("tip");
  if (over !== (i ?? null)) over = i ?? null, dirty();
  canvas.classList.toggle("over", i !== undefined);
  tip.hidden = i === undefined || knob === true;
  if (tip.hidden) return;
  tip.textContent = [KINDS[kind(i)].join(" ").trim(), reward[i] === null ? "" : `reward ${number(reward[i])}`]
    .filter(Boolean).join(", ") + `\n${(i ? text[i] : data.question).slice(0, 300)}` + (dead[i] === null ? "" : `\n${dead[i].slice(0, 200)}`);
  tip.style.left = `${clamp(e.offsetX + 14, 0, Math.max(0, width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${e.offsetY + 18 + tip.offsetHeight > height ? e.offsetY - tip.offsetHeight - 10 : e.offsetY + 18}px`;
}

// Folding, choosing, finding.

function toggle(i) {
  if (!children[i].length) return;
  const y = middle(i) * view.ky;
  if (!folded.delete(i)) folded.add(i);
  layout();
  view = { ...view, y: view.y + y - middle(i) * view.ky };  // what was clicked stays under the pointer, and legible
  if (folded.has(i) && box(i).h < 14) move({ ...view, ky: 20, y: box(i).mid - middle(i) * 20 });
  for (let p = selected; p !== null && !placed[selected]; p = parent[p]) if (placed[p]) select(p);
}

function foldAll(keep) {
  folded.clear();
  if (keep) for (let i = 1; i < count; i++) if (children[i].length && !best.has(i)) folded.add(i);
  layout();
  if (!placed[selected]) select(chosen ?? 0);
  move(whole(200));
}

function select(i, show = false) {
  selected = i;
  panel(i);
  if (show) reveal(i);
  dirty();
}

function find() {
  const words = $("search").value.toLowerCase().trim();
  hits = words ? [...text.keys()].filter((i) => i && [text[i], answer[i], critique[i], dead[i]]
    .some((s) => s !== null && s.toLowerCase().includes(words))) : [];
  hit = new Set(hits);
  $("hits").textContent = words ? `${hits.length} found` : "";
  dirty();
}

function next(step) {
  if (!hits.length) return;
  const here = hits.indexOf(selected), to = here < 0 ? (step > 0 ? 0 : hits.length - 1) : (here + step + hits.length) % hits.length;
  select(hits[to], true);
  $("hits").textContent = `${to + 1} of ${hits.length}`;
}

// The panel. Everything goes in as text.

function el(tag, props, ...inside) {
  const made = Object.assign(document.createElement(tag), props);
  made.append(...inside);
  return made;
}

const gauge = (x) => {
  const inner = el("i");
  inner.style.cssText = `width:${clamp(x, 0, 1) * 100}%;background:${css.ramp[Math.round(clamp(x, 0, 1) * 100)]}`;
  return el("span", {}, el("span", { className: "gauge" }, inner), number(x, 3));
};
const item = (sign, words, score, onclick, here) => el("li", {}, el("button", { className: here ? "here" : "", title: words, onclick },
  el("small", {}, sign), el("span", {}, words), el("small", {}, score)));
const entry = (i) => item(KINDS[kind(i)][0] || (i ? "·" : "?"), line(i).slice(0, 300), i ? number(reward[i]) : "",
  () => select(i, true), i === selected);

const list = (title, items, more = 0) => !items.length ? [] : [el("h3", {}, title), el("ol", { className: "list" }, ...items),
  more > 0 ? el("p", { className: "kind" }, `and ${more} more`) : ""];

function panel(i, anew = true) {  // not anew: only if what it says has changed, and where it is read
  const path = [], what = kind(i);
  for (let p = i; p !== null; p = parent[p]) path.push(p);
  path.reverse();
  const inside = [
    el("h2", {}, i ? `Step ${i}` : "Question"),
    el("p", { className: best.has(i) ? "kind best" : "kind" }, KINDS[what].join(" ").trim() + (best.has(i) && i !== chosen && i ? ", on the best path" : "")),
    el("p", { className: "step" }, i ? text[i] : data.question),
  ];
  if (dead[i] !== null) inside.push(el("p", { className: "why" }, `✕ Dead end: ${dead[i]}`));
  const rows = [
    answer[i] !== null && ["answer", answer[i]],
    reward[i] !== null && ["reward", gauge(reward[i])],
    visits[i] > 0 && ["value", gauge(value[i])],
    visits[i] > 0 && ["visits", visits[i].toLocaleString("en")],
    i && samples[i] !== null && ["proposed", samples[i] === 1 ? "once" : `${samples[i]} times`],
    !terminal[i] && drawn[i] !== null && ["tried from here", `${many(drawn[i], "sample")}, ${children[i].length} different`],
    i && !live && ["tokens", `${number(tokens[i], 0)}, with the steps before ${spent[i]}`],
    size[i] > 1 && ["after it", many(size[i] - 1, "step") + (live ? "" : `, ${many(cost[i] - (tokens[i] || 0), "token")}`)],
    logprob[i] !== null && ["log-probability", `${number(logprob[i], 3)} nats a token`],
  ].filter(Boolean);
  inside.push(el("dl", {}, ...rows.flatMap(([name, what]) => [el("dt", {}, name), el("dd", {}, what)])));
  if (critique[i] !== null) inside.push(el("h3", {}, "The verifier wrote"), el("p", { className: "step" }, critique[i]));
  if (i) inside.push(...list(path.length > 100 ? "Path, its end" : "Path", path.slice(-100).map(entry)));
  else if (data.ranking) inside.push(...list("Answers, best first", data.ranking.slice(0, 12).map(([name, score]) =>
    item("◆", String(name), number(score), () => select(Math.max(0, answer.indexOf(name)), true))), data.ranking.length - 12));
  inside.push(...list(i ? "Steps after it" : "First steps", children[i].slice(0, 100).map(entry), children[i].length - 100));
  const made = el("div", {}, ...inside), was = $("panel").scrollTop;
  if (!anew && $("panel").textContent === made.textContent) return;
  $("panel").replaceChildren(...made.childNodes);
  $("panel").scrollTop = anew ? 0 : was;
  if (!anew) return;
  $("said").textContent = [inside[0].textContent, inside[1].textContent, line(i).slice(0, 200)].join(", ");
}

// Replay: ids are the order of creation.

let playing = 0;

function setTime(n) {
  born = n;
  $("time").value = n;
  $("clock").textContent = n < count ? `step ${n - 1} of ${count - 1}` : many(count - 1, "step");
  dirty();
}

function play(on) {
  const mine = ++playing, speed = Math.max(count / 10, 4);  // ten seconds in all, or four steps a second
  $("play").textContent = on ? "❚❚" : "▶";
  if (!on) return;
  if (born >= count) setTime(1);
  let then = performance.now(), exact = born;
  requestAnimationFrame(function tick(now) {
    if (mine !== playing) return;
    exact += Math.max(0, now - then) / 1000 * speed, then = now;
    if (Math.floor(exact) !== born) setTime(Math.min(count, Math.floor(exact)));
    if (born < count) requestAnimationFrame(tick); else play(false);
  });
}

// Keys and buttons.

function neighbour(step) {
  const level = levels[depth[selected]].filter((i) => i < born);
  return level[level.indexOf(selected) + step] ?? selected;
}

function onward() {
  if (folded.has(selected)) toggle(selected);
  const after = children[selected].filter((i) => i < born);
  return after.find((i) => best.has(i)) ?? after[0] ?? selected;
}

const KEYS = {
  ArrowLeft: () => select(parent[selected] ?? 0, true), ArrowRight: () => select(onward(), true),
  ArrowUp: () => select(neighbour(-1), true), ArrowDown: () => select(neighbour(1), true),
  Home: () => select(0, true), End: () => select(chosen ?? 0, true),
  Enter: () => toggle(selected), " ": () => toggle(selected),
};
const SHORT = {
  "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit, "/": () => $("search").select(),
  n: () => next(1), N: () => next(-1), p: () => play($("play").textContent === "▶"), b: () => foldAll(true),
};
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("input, select")) return;
  const todo = e.target === canvas || e.target === document.body ? KEYS[e.key] ?? SHORT[e.key] : SHORT[e.key];
  if (todo) e.preventDefault(), todo();
});
$("search").addEventListener("input", find);
$("search").addEventListener("keydown", (e) => {
  if (e.key === "Enter") next(e.shiftKey ? -1 : 1);
  if (e.key === "Escape") $("search").value = "", find(), canvas.focus();
});
$("time").addEventListener("input", (e) => { play(false), setTime(Number(e.target.value)); });
$("measure").addEventListener("change", (e) => { measure = MEASURES[e.target.value], legend(), dirty(); });
for (const [id, todo] of Object.entries({
  unfold: () => foldAll(false), focus: () => foldAll(true), fit, in: () => zoom(1.4), out: () => zoom(1 / 1.4),
  play: () => play($("play").textContent === "▶"), theme: () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches, root = document.documentElement.style;
    root.colorScheme = (root.colorScheme || (dark ? "dark" : "light")) === "dark" ? "light" : "dark", colours();
  },
})) $(id).addEventListener("click", todo);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colours);

function legend() {
  const signs = ["chosen", "answer", "dead", "open"].map((name) => el("span", {}, el("b", {}, KINDS[name][0]), ` ${KINDS[name][1]}`));
  const ramp = el("span", {}, `${measure[0]} 0`, el("span", { className: "ramp" }), measure[2]());
  $("legend").replaceChildren(...signs, el("span", {}, el("b", {}, "━"), " best path"), ramp);
}

function facts() {
  const { policy_usage: policy, verifier_usage: verifier, usage } = data, said = [many(count - 1, "step")];
  if (policy) said.push(`${many(policy.completion_tokens, "token")} generated`);
  if (policy && verifier) said.push(`${(policy.prompt_tokens + verifier.prompt_tokens + verifier.completion_tokens).toLocaleString("en")} read`);
  if (usage && usage.cost_usd !== null) said.push(`$${number(usage.cost_usd, 4)}`);
  if (live) said.push(`${many(reward.filter((x) => x !== null).length, "score")}`, `${Math.round(data.seconds + (performance.now() - opened) / 1000)} s`);
  else if (typeof data.seconds === "number") said.push(`${number(data.seconds)} s`);
  if (data.stop) said.push(String(data.stop));
  const name = data.answer ?? (chosen === null ? null : answer[chosen]);
  const head = live ? [el("b", { className: "live" }, state), " · "] : state ? [el("b", {}, state), " · "] : [];
  head.push(...name === null ? [live ? "no answer yet" : "no answer"] : [live ? "best so far " : "answer ", el("b", {}, String(name))]);
  const sure = live ? chosen === null ? null : reward[chosen] : data.confidence;
  if (name !== null && typeof sure === "number") head.push(`, ${live ? "reward" : "confidence"} ${number(sure)}`);
  $("facts").replaceChildren(...head, ...said.map((s) => ` · ${s}`));
  $("facts").title = $("facts").textContent;
}

// Live: what happens in a search comes in batches, and in the end all that is known of it.

const opened = performance.now();
let state = "";

const columns = () => [parent, text, answer, terminal, tokens, logprob, reward, visits, value, samples, drawn, dead, critique, scored, died];

function take(event) {
  if (event.event === "restarted") {  // another tree, behind steps that are fixed now
    for (const column of columns()) column.length = 1, column[0] = null;
    text[0] = "", data.question = event.question, chosen = null, born = count = 1;
    folded.clear(), selected = 0;
  } else if (event.event === "created") {
    parent.push(event.parent), text.push(event.text), terminal.push(event.terminal), answer.push(event.answer);
    for (const column of [tokens, logprob, reward, visits, value, samples, drawn, dead, critique, scored, died]) column.push(null);
    dead[event.parent] = died[event.parent] = null;  // a call failed there, and another one did not
    if (event.terminal && chosen === null) chosen = parent.length - 1;
  } else if (event.event === "scored") {
    const i = event.node;
    reward[i] = event.reward, scored[i] = parent.length;
    if (terminal[i] && !(reward[chosen] >= reward[i])) chosen = i;
  } else if (!parent.includes(event.node)) dead[event.node] = event.error, died[event.node] = parent.length;
}

function changed() {  // the data have; what the reader looks at stays
  const whole_time = born >= count;
  grown(), layout();
  if (following) view = whole();
  $("time").max = count;
  setTime(whole_time ? count : born);
  if ($("search").value) find();
  facts();
}

function watch(events) {
  const source = new EventSource(events), clock = setInterval(facts, 1000);
  const end = (said) => { live = false, state = said, source.close(), clearInterval(clock); };
  scored = parent.map(() => null), died = parent.map(() => null), state = "searching";
  source.onopen = () => { state = "searching", facts(); };
  source.onerror = () => { state = source.readyState === 2 ? "the connection is lost" : "reconnecting", facts(); };
  source.addEventListener("grow", (e) => { JSON.parse(e.data).forEach(take), changed(), panel(selected, false); });
  source.addEventListener("failed", (e) => { end(JSON.parse(e.data)), changed(), panel(selected, false); });
  source.addEventListener("end", (e) => {
    const all = born >= count;
    end(""), load(JSON.parse(e.data));
    if (all) born = count;
    changed(), legend(), selected ? panel(selected, false) : select(chosen ?? 0);
  });
}

new ResizeObserver(() => {
  const was = width;
  width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * devicePixelRatio), canvas.height = Math.round(height * devicePixelRatio);
  if (!was || live && following) view = whole(live ? 0 : 200);
  draw();
}).observe(canvas);
load(JSON.parse($("data").textContent));
document.title = `${data.question.replace(/\s+/g, " ").slice(0, 80)} – search tree`;
$("question").textContent = $("question").title = data.question;
$("measure").append(...Object.entries(MEASURES).map(([name, [said]]) => el("option", { value: name }, said)));
$("time").max = count;
colours(), layout(), setTime(count), legend();
if (live) watch(data.live);
facts(), select(chosen ?? 0);
