// The closed forms of klsim for one bandit, in log space: the tilt, its KL and reward, best-of-N with ties, k1, k2, k3.
"use strict";

// ---- mathematics -----------------------------------------------------------------------------------------------

const sum = (xs) => xs.reduce((a, b) => a + b, 0);
const dot = (xs, ys) => sum(xs.map((x, i) => x * ys[i]));

function logNormalize(x) {
  const top = Math.max(...x);
  const total = top + Math.log(sum(x.map((v) => Math.exp(v - top))));
  return x.map((v) => v - total);
}

/** ref(a) exp(r(a) / beta), normalised: the optimum of E r - beta KL. */
const tilt = (logRef, reward, beta) => logNormalize(logRef.map((l, a) => l + reward[a] / beta));

const kl = (logP, logQ) => sum(logP.map((l, a) => Math.exp(l) * (l - logQ[a])));
const mean = (logP, f) => dot(logP.map(Math.exp), f);

/** The best of N draws; ties share what falls to them in proportion to the reference. */
function bestOfN(logRef, reward, n) {
  const p = logRef.map(Math.exp);
  return p.map((mass, a) => {
    const tied = sum(p.filter((_, b) => reward[b] === reward[a]));
    const upTo = sum(p.filter((_, b) => reward[b] <= reward[a]));
    // F^n - (F - t)^n = F^n (1 - (1 - t/F)^n)
    const won = Math.exp(n * Math.log(upTo)) * -Math.expm1(n * Math.log1p(-Math.min(tied / upTo, 1)));
    return Math.log(mass) + Math.log(won) - Math.log(tied);
  });
}

/** The largest KL a tilt can have: that of the reference conditioned on the best actions. */
function largestKl(logRef, reward) {
  const top = Math.max(...reward);
  return -Math.log(sum(logRef.filter((_, a) => reward[a] === top).map(Math.exp)));
}

/** The beta whose tilt has the KL `budget`, by bisection in log beta. */
function betaOf(logRef, reward, budget) {
  let low = -12, high = 12; // of log beta: the KL falls in beta
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (kl(tilt(logRef, reward, Math.exp(middle)), logRef) > budget) low = middle;
    else high = middle;
  }
  return Math.exp((low + high) / 2);
}

/** Mean and standard deviation over the policy of k1, k2 and k3. */
function estimators(logP, logRef) {
  const ratio = logP.map((l, a) => l - logRef[a]); // log(pi/ref)
  const forms = {
    k1: ratio,
    k2: ratio.map((x) => (x * x) / 2),
    k3: ratio.map((x) => Math.expm1(-x) + x),
  };
  const exact = kl(logP, logRef);
  return Object.fromEntries(Object.entries(forms).map(([name, f]) => {
    const m = mean(logP, f);
    return [name, { mean: m, bias: m - exact, std: Math.sqrt(Math.max(mean(logP, f.map((x) => (x - m) ** 2)), 0)) }];
  }));
}

/** Everything that the page shows, of a state {logits, reward, beta, lam, n}. */
function compute(state) {
  const { reward, beta, lam, n } = state;
  const logRef = logNormalize(state.logits);
  const place = (logP) => ({ log_policy: logP, kl: Math.max(kl(logP, logRef), 0), reward: mean(logP, reward) });
  const optimum = place(tilt(logRef, reward, beta));
  return {
    log_ref: logRef,
    reference: place(logRef),
    optimum: { ...optimum, value: optimum.reward - beta * optimum.kl },
    student: place(lam === 0 ? logRef : tilt(logRef, reward, beta / lam)),
    best_of_n: place(bestOfN(logRef, reward, n)),
    largest_kl: largestKl(logRef, reward),
    estimators: estimators(optimum.log_policy, logRef),
  };
}

// ---- state: in the address, so that a view can be sent to somebody ---------------------------------------------

const START = { logits: [1.6, 1.0, 0.2, -1.2], reward: [0, 0.4, 0.6, 1], beta: 0.3, lam: 1.25, n: 8 };
const LARGEST = 8;

function read(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const numbers = (name) => (given.get(name) || "").split(",").filter(Boolean).map(Number);
  const within = (x, low, high, other) => (Number.isFinite(x) ? Math.min(Math.max(x, low), high) : other);
  const logits = numbers("logits"), reward = numbers("reward");
  const fit = logits.length === reward.length && logits.length >= 2 && logits.length <= LARGEST;
  return {
    logits: (fit ? logits : START.logits).map((x) => within(x, -8, 8, 0)),
    reward: (fit ? reward : START.reward).map((x) => within(x, -5, 5, 0)),
    beta: within(parseFloat(given.get("beta")), 1e-2, 32, START.beta),
    lam: within(parseFloat(given.get("lam")), 0, 2, START.lam),
    n: Math.round(within(parseFloat(given.get("n")), 1, 64, START.n)),
  };
}

function write(state) {
  const text = Object.entries(state).map(([k, v]) => `${k}=${Array.isArray(v) ? v.join(",") : v}`).join("&");
  history.replaceState(null, "", `#${text}`);
}

// ---- drawing ---------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v);
  made.append(...children);
  return made;
}

const text = (x, y, words, more = {}) => svg("text", { x, y, ...more }, words);
const show = (x) => (Math.abs(x) < 1e-14 ? "0" : Math.abs(x) >= 1e-3 ? x.toPrecision(3) : x.toExponential(1));
const widthOf = (id) => Math.min(Math.max(document.getElementById(id).clientWidth, 300), 900);

/** Round numbers from low to high, about four of them. */
function ticks(low, high) {
  if (high - low < 1e-9 * Math.max(Math.abs(high), 1)) return [[high, Number(high.toPrecision(6)).toString()]];
  const raw = (high - low) / 4 || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found.map((x) => [x, Number(x.toPrecision(6)).toString()]);
}

const SERIES = [
  ["reference", "reference", "var(--c0)", "circle"],
  ["optimum", "optimum", "var(--c1)", "square"],
  ["student", "G-OPD student", "var(--c3)", "diamond"],
  ["best_of_n", "best-of-N", "var(--c2)", "triangle"],
];

function marker(shape, x, y, fill) {
  const paths = {
    circle: `M${x - 5},${y}a5,5 0 1,0 10,0a5,5 0 1,0 -10,0`,
    square: `M${x - 5},${y - 5}h10v10h-10z`,
    diamond: `M${x},${y - 7}l7,7l-7,7l-7,-7z`,
    triangle: `M${x},${y - 6}l6,11h-12z`,
  };
  return svg("path", { d: paths[shape], fill });
}

function legend(width) {
  const made = svg("g", {}), narrow = width < 520;
  SERIES.forEach(([, words, colour, shape], i) => {
    const x = 50 + ((narrow ? i % 2 : i) * (width - 60)) / (narrow ? 2 : 4), y = 12 + (narrow && i > 1 ? 20 : 0);
    made.append(marker(shape, x, y, colour), text(x + 12, y + 4, words));
  });
  return made;
}

function drawBars(found) {
  const width = widthOf("bars"), height = 270, left = 58, bottom = 34, top = 52;
  const count = found.log_ref.length, slot = (width - left - 10) / count, bar = Math.min((slot - 10) / 4, 26);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Probability of every action under the four policies" }, legend(width));
  const y = (p) => top + (1 - p) * (height - top - bottom);
  for (const p of [0, 0.25, 0.5, 0.75, 1]) {
    picture.append(svg("line", { x1: left, x2: width - 10, y1: y(p), y2: y(p), class: "rule" }), text(left - 6, y(p) + 4, String(p), { "text-anchor": "end", class: "soft" }));
  }
  for (let a = 0; a < count; a++) {
    SERIES.forEach(([name, , colour], i) => {
      const p = Math.exp(found[name].log_policy[a]);
      picture.append(svg("rect", { x: left + a * slot + (slot - 4 * bar) / 2 + i * bar, y: y(p), width: Math.max(bar - 2, 1), height: Math.max(y(0) - y(p), 0), fill: colour }, svg("title", {}, `${show(p)}`)));
    });
    picture.append(text(left + a * slot + slot / 2, height - 14, slot < 60 ? String(a + 1) : `action ${a + 1}`, { "text-anchor": "middle", class: "soft" }));
  }
  picture.append(text(14, top + 90, "probability", { transform: `rotate(-90 14 ${top + 90})`, "text-anchor": "middle", class: "soft" }));
  document.getElementById("bars").replaceChildren(picture);
}

function drawFrontier(state, found) {
  const width = widthOf("frontier"), height = 340, left = 64, bottom = 44, top = 52, right = 16;
  const best = Math.max(...state.reward), from = Math.min(found.reference.reward, ...SERIES.map(([n]) => found[n].reward));
  const wide = Math.max(found.largest_kl, ...SERIES.map(([n]) => found[n].kl), 1e-9) * 1.03;
  const room = (best - from || 1) * 0.06;
  const x = (k) => left + (k / wide) * (width - left - right);
  const y = (r) => height - bottom - ((r - from + room) / (best - from + 2 * room)) * (height - top - bottom);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Expected reward against KL from the reference" }, legend(width));
  for (const [r, words] of ticks(from, best)) {
    picture.append(svg("line", { x1: left, x2: width - right, y1: y(r), y2: y(r), class: "rule" }), text(left - 6, y(r) + 4, words, { "text-anchor": "end", class: "soft" }));
  }
  for (const [k, words] of ticks(0, wide)) picture.append(text(x(k), height - bottom + 16, words, { "text-anchor": "middle", class: "soft" }));
  const points = [];
  for (let i = 0; i <= 240; i++) {
    const p = tilt(found.log_ref, state.reward, Math.exp(6 - (12 * i) / 240));
    points.push(`${x(Math.max(kl(p, found.log_ref), 0))},${y(mean(p, state.reward))}`);
  }
  picture.append(svg("polyline", { points: points.join(" "), fill: "none", stroke: "var(--c1)", "stroke-width": 2 }));
  for (let n = 1; n <= 64; n++) {
    const p = bestOfN(found.log_ref, state.reward, n);
    picture.append(svg("circle", { cx: x(Math.max(kl(p, found.log_ref), 0)), cy: y(mean(p, state.reward)), r: 2, fill: "var(--c2)" }));
  }
  for (const [name, words, colour, shape] of SERIES) {
    const mark = marker(shape, x(found[name].kl), y(found[name].reward), colour);
    mark.append(svg("title", {}, `${words}: ${show(found[name].kl)} nats, reward ${show(found[name].reward)}`));
    picture.append(mark);
  }
  picture.append(
    text((left + width) / 2, height - 8, "KL(policy ‖ reference), nats", { "text-anchor": "middle", class: "soft" }),
    text(14, height / 2, "expected reward", { transform: `rotate(-90 14 ${height / 2})`, "text-anchor": "middle", class: "soft" }),
  );
  document.getElementById("frontier").replaceChildren(picture);
}

function table(head, rows) {
  const made = document.createElement("table");
  const row = (cells, kind) => {
    const tr = document.createElement("tr");
    for (const cell of cells) {
      const td = document.createElement(kind);
      if (kind === "th") td.scope = "col";
      td.textContent = cell;
      tr.append(td);
    }
    return tr;
  };
  made.append(row(head, "th"), ...rows.map((cells) => row(cells, "td")));
  return made;
}

function drawTables(found) {
  const rows = Object.entries(found.estimators).map(([name, e]) => [name, show(e.mean), show(e.bias), show(e.std)]);
  const places = SERIES.map(([name, words]) => [words, show(found[name].kl), show(found[name].reward)]);
  document.getElementById("estimators").replaceChildren(
    table(["estimator", "mean", "bias", "standard deviation"], rows),
    table(["policy", "KL, nats", "expected reward"], places),
  );
}

// ---- page ------------------------------------------------------------------------------------------------------

let state = read(location.hash);

function slider(id, label, low, high, step, value, onInput) {
  const made = document.createElement("label"), shown = document.createElement("output"), input = document.createElement("input");
  Object.assign(input, { type: "range", id, min: low, max: high, step });
  input.value = value;
  shown.textContent = show(Number(value));
  input.addEventListener("input", () => { shown.textContent = show(Number(input.value)); onInput(Number(input.value)); });
  made.htmlFor = id;
  made.append(label, shown, input);
  return made;
}

function buildActions() {
  const rows = state.logits.map((_, a) => {
    const pair = document.createElement("div");
    pair.className = "pair";
    pair.append(
      slider(`logit${a}`, `logit of action ${a + 1}`, -8, 8, 0.1, state.logits[a], (v) => { state.logits[a] = v; update(); }),
      slider(`reward${a}`, "its reward", -1, 1, 0.05, state.reward[a], (v) => { state.reward[a] = v; update(); }),
    );
    return pair;
  });
  document.getElementById("actions").replaceChildren(...rows);
}

function update() {
  const found = compute(state);
  const put = (id, value, words) => { document.getElementById(id).value = value; document.getElementById(`${id}-out`).textContent = words; };
  put("beta", Math.log10(state.beta), show(state.beta));
  document.getElementById("budget").max = found.largest_kl || 1;
  put("budget", found.optimum.kl, `${show(found.optimum.kl)} of at most ${show(found.largest_kl)}`);
  put("lam", state.lam, state.lam.toFixed(2));
  put("n", state.n, String(state.n));
  drawBars(found);
  drawFrontier(state, found);
  drawTables(found);
  document.body.dataset.numbers = JSON.stringify(found); // at full precision, for the test
  return found;
}

function listen(id, change) {
  document.getElementById(id).addEventListener("input", (event) => { change(Number(event.target.value)); update(); write(state); });
}

listen("beta", (v) => { state.beta = 10 ** v; });
listen("budget", (v) => {
  const logRef = logNormalize(state.logits);
  state.beta = Math.min(Math.max(betaOf(logRef, state.reward, v), 1e-2), 32);
});
listen("lam", (v) => { state.lam = v; });
listen("n", (v) => { state.n = Math.round(v); });
document.getElementById("actions").addEventListener("change", () => write(state));
document.getElementById("add").addEventListener("click", () => {
  if (state.logits.length < LARGEST) { state.logits.push(0); state.reward.push(0.5); buildActions(); update(); write(state); }
});
document.getElementById("remove").addEventListener("click", () => {
  if (state.logits.length > 2) { state.logits.pop(); state.reward.pop(); buildActions(); update(); write(state); }
});
document.getElementById("reset").addEventListener("click", () => { state = structuredClone(START); buildActions(); update(); write(state); });
addEventListener("resize", update);
addEventListener("hashchange", () => { state = read(location.hash); buildActions(); update(); });
buildActions();
update();
