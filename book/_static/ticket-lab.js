// The ticket lab of the playground page: train a network, prune it, race its ticket against the two
// controls. What it trains is told by the part of the address after "#", such as
// #seed=2&keep=13.5&step=race, so that a race can be sent; two numbers in `keep` are two prunings.
// ticket-worker.js has the mathematics, the page itself the recorded race and its axes.
addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("ticket-lab");
  if (!root) return;
  const ITERATIONS = 150, EVERY = 5, PACE = 60; // PACE: milliseconds of a look at the networks
  const RACERS = ["ticket", "reinit", "random"];
  const STEPS = ["train", "race", "zero"];
  const races = []; // {seed, keep, curves: {ticket | reinit | random: [{iteration, accuracy}]}}
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const recorded = root.querySelector("figure.race");

  const give_up = (why) => {
    const said = document.createElement("p");
    said.className = "why";
    said.textContent = `${why} So nothing can be trained on this page: the race above is the recorded one.`;
    root.replaceChildren(recorded, said);
  };
  if (typeof Worker === "undefined") return give_up("This browser has no web workers, in which networks are trained.");

  // --- what is said -----------------------------------------------------------------------------

  const percent = (accuracy) => `${(100 * accuracy).toFixed(1)} %`;
  const link = (to, words) => ` <a href="${to}.html">${words}</a>`;
  const last = () => state.looks[state.looks.length - 1].looks;
  const words = {
    ready: () =>
      "Start with a network of 784 inputs, one for each pixel, 100 hidden units and 10 outputs: 79,400 connections. " +
      "Training it from nothing takes a few seconds; below is a race that was " +
      "run before." + link("../intro", "What is a winning ticket?"),
    training: () =>
      "A network with 79,400 connections learns from 1,000 digits, 60 at a time. It starts from random weights, and " +
      "guesses. Below you see its guesses change." + link("../method", "How networks are trained here"),
    train: () =>
      `Trained: ${percent(last().dense.accuracy)} of 500 new digits are right. Now move the slider: the smallest weights ` +
      "go first, and most of those come from the edge of the picture, where there is no ink. " +
      "Keep as few as you dare, then race." + link("fig21", "Which connections survive"),
    racing: () =>
      "Three networks with equally many connections see the same digits in the same order. The ticket starts from its own " +
      "first weights, <em>reinit</em> has the same connections with new weights, <em>random</em> has other connections " +
      "and new weights." + link("fig03", "The same race in the paper"),
    race: () => {
      const { ticket, reinit, random } = last();
      return `After ${ITERATIONS} iterations: ticket ${percent(ticket.accuracy)}, reinit ${percent(reinit.accuracy)}, random ` +
        `${percent(random.accuracy)}. But look where the blue line starts.` + link("fig03", "The same race in the paper");
    },
    zero: () => {
      const { ticket, reinit, random } = state.looks[0].looks;
      return `Nobody has trained yet, and the ticket already gets ${percent(ticket.accuracy)} right, reinit ` +
        `${percent(reinit.accuracy)}, random ${percent(random.accuracy)}. Its weights are still the random first ones: what has ` +
        "learnt is the mask, for training chose which of them to keep. So the race starts with this lead, and the question " +
        "is how much of it is left at the end." + link("chapter1", "Accurate before training");
    },
    again: () =>
      `Other first weights, other random connections; pale lines are earlier races. ${score()} ` +
      "One race may be luck, so race again." + link("../reading", "How the book counts trials"),
    prune: () =>
      `The trained ticket was pruned again, to ${state.keep} %, and set back to its first weights: this is the paper's ` +
      "<em>iterative</em> pruning. Each round adds a point to the second picture. " +
      "Go on until the ticket breaks." + link("fig04", "One-shot and iterative pruning"),
    stopped: () => "Stopped. What was finished is kept.",
  };

  const score = () => {
    const won = races.filter(({ curves }) => {
      const [ticket, ...others] = RACERS.map((name) => curves[name][curves[name].length - 1].accuracy);
      return others.every((accuracy) => ticket > accuracy);
    });
    return `Ticket ahead at the end in ${won.length} of ${races.length}.`;
  };

  root.insertAdjacentHTML("afterbegin", `
    <p class="said" role="status" aria-live="polite"></p>
    <div class="controls">
      <button data-do="train">Train a network</button>
      <button data-do="race">Race three networks</button>
      <button data-do="zero">Look at iteration 0</button>
      <button data-do="again">Again, new seed</button>
      <button data-do="prune">Prune again from here</button>
      <button data-do="stop">Stop</button>
    </div>
    <div class="keep"><label>Keep <output></output><input type="range" name="keep" min="0" max="200"></label>
      <p></p></div>`);
  recorded.insertAdjacentHTML("afterend", `
    <div class="insight">
      <div><canvas width="28" height="28" role="img"></canvas><p>Connections of each pixel: none left (empty) to all 100
        (full colour)</p></div>
      <div><svg viewBox="0 0 200 118" role="img" aria-label="Histogram of the trained weights"></svg><p>Trained
        weights of the hidden layer: kept (blue), pruned (grey)</p></div>
    </div>
    <p class="numbers"></p>
    <div class="guesses"><table><caption>Ten of the 500 digits, and what they are taken for</caption><thead></thead><tbody>
      </tbody></table></div>
    <figure class="rounds" hidden><svg viewBox="0 0 430 220" role="img"></svg><figcaption>Accuracy after ${ITERATIONS}
      iterations, over the connections kept, of this seed.</figcaption></figure>`);
  const one = (selector) => root.querySelector(selector);
  const button = Object.fromEntries([...root.querySelectorAll("[data-do]")].map((each) => [each.dataset.do, each]));
  const slider = one("[name=keep]"), caption = one("figcaption"), chart = one(".chart .curves");
  button.race.before(one(".keep"));

  // --- what there is ----------------------------------------------------------------------------

  const maths = ticketMaths();
  const state = {
    seed: 1,
    keep: 13.5, // in percent, where the slider stands
    rounds: [], // the prunings that led to `base`, likewise
    base: null, // the trained network that the slider prunes
    raced: null, // {keep, ticket} of the last race, trained
    looks: [], // {iteration, looks: {network: {accuracy, guesses}}} of this training
    dense: [], // likewise of the dense network
    points: [], // {keep, looks} of this seed's races
    step: "ready",
    left: "race", // the step that a look at iteration 0 leads back to
  };

  const unpacked = () => {
    const text = atob(ticketDigits.pixels), pixels = new Uint8Array(784 * ticketDigits.labels.length);
    for (let i = 0, at = 0; i < text.length; i++) {
      const value = text.charCodeAt(i);
      if (value) pixels[at++] = value;
      else at += text.charCodeAt(++i); // a run of black pixels
    }
    return pixels;
  };
  const pixels = unpacked(), labels = Uint8Array.from(ticketDigits.labels), training = ticketDigits.training;
  const unseen = maths.scaled(pixels.subarray(784 * training)), truth = labels.subarray(training);

  const hash = () => {
    const keeps = [...state.rounds, state.keep].join(",");
    const step = !state.raced ? "train" : state.step === "zero" ? "zero" : "race";
    history.replaceState(null, "", `#seed=${state.seed}&keep=${keeps}&step=${step}`);
  };

  // --- a worker and what it sees ----------------------------------------------------------------

  const STOPPED = new Error("stopped");
  let stop = () => {};

  // Hands a job to a worker of its own and shows what it sees; gives the trained networks.
  const work = async (job, show = () => {}, pace = 0) => {
    const source = new Blob([`${ticketMaths}\n(${ticketWorker})();`], { type: "text/javascript" });
    const address = URL.createObjectURL(source);
    const worker = new Worker(address);
    const messages = [];
    let wake = () => {};
    const hear = (message) => {
      messages.push(message);
      wake();
    };
    worker.onmessage = ({ data }) => hear(data);
    worker.onerror = (event) => hear({ error: new Error(event.message) });
    stop = () => {
      worker.terminate();
      messages.length = 0;
      hear({ error: STOPPED });
    };
    worker.postMessage({ pixels, labels, training, iterations: ITERATIONS, every: EVERY, ...job });
    try {
      for (;;) {
        while (!messages.length) await new Promise((resolve) => (wake = resolve));
        const message = messages.shift();
        if (message.error) throw message.error;
        if (message.trained) return message.trained;
        show(message);
        if (pace) await new Promise((resolve) => setTimeout(resolve, pace));
      }
    } finally {
      worker.terminate();
      URL.revokeObjectURL(address);
    }
  };

  const watch = (job) => {
    state.looks = [];
    return work(job, (look) => {
      state.looks.push(look);
      if (!calm || look.iteration % ITERATIONS === 0) draw();
    }, calm ? 0 : PACE);
  };

  // --- the script -------------------------------------------------------------------------------

  const train = async () => {
    Object.assign(state, { rounds: [], base: null, raced: null, points: [], dense: [], looks: [] });
    enter("training");
    const trained = await watch({ seed: state.seed });
    Object.assign(state, { base: trained.dense, dense: state.looks, points: [{ keep: 100, looks: last() }] });
  };

  // The part of the survivors that goes, from one keep to the next.
  const rate = (keep) => 1 - keep / (state.rounds[state.rounds.length - 1] ?? 100);
  const pruned = () => maths.prune(state.base.weights, state.base.mask, rate(state.keep));

  const race = async () => {
    enter("racing");
    prune();
    const { seed, keep, rounds } = state;
    const trained = await watch({ seed, round: rounds.length + 1, mask: pruned() });
    const curve = (name) => state.looks.map(({ iteration, looks }) => ({ iteration, accuracy: looks[name].accuracy }));
    races.push({ seed, keep, curves: Object.fromEntries(RACERS.map((name) => [name, curve(name)])) });
    state.raced = { keep, ticket: trained.ticket };
    state.points = [...state.points.filter((point) => point.keep !== keep), { keep, looks: last() }];
  };

  const deeper = (keep) => {
    state.rounds.push(state.raced.keep);
    Object.assign(state, { base: state.raced.ticket, keep });
  };

  // Trains a seed and races it at each keep in turn.
  const all = async (keeps) => {
    state.keep = keeps[0];
    await train();
    for (const [i, keep] of keeps.entries()) {
      if (i) deeper(keep);
      await race();
    }
  };

  const doing = {
    train: async () => (await train(), sweep(), "train"),
    race: async () => (await race(), "race"),
    zero: async () => {
      if (state.step === "zero") return state.left;
      state.left = state.step;
      return "zero";
    },
    again: async () => {
      const keeps = [...state.rounds, state.keep];
      state.seed += 1;
      await all(keeps);
      return "again";
    },
    prune: async () => {
      deeper(shown(state.raced.keep / 2));
      await race();
      return "prune";
    },
  };

  // Does a step and shows where it leads; a stopped step leads to where one can go on from.
  const go = async (act) => {
    let then;
    try {
      then = await act();
    } catch (error) {
      if (error !== STOPPED) return give_up(`Training failed here (${error.message}).`);
      if (!state.base) state.looks = [];
      then = "stopped";
    }
    enter(then);
    if (state.base) hash();
  };

  // --- what is shown ----------------------------------------------------------------------------

  const enter = (step) => {
    state.step = step;
    const busy = step === "training" || step === "racing";
    root.dataset.state = busy ? "training" : state.base ? "done" : "ready";
    root.classList.toggle("begun", step !== "ready" && (busy || Boolean(state.base)));
    const focused = root.contains(document.activeElement) && document.activeElement.dataset.do;
    const offered = {
      train: !busy && !state.base,
      race: !busy && state.base,
      zero: !busy && state.raced,
      again: !busy && state.base,
      prune: !busy && state.raced && state.raced.keep >= 2,
      stop: busy,
    };
    for (const [name, each] of Object.entries(button)) each.hidden = !offered[name];
    button.zero.textContent = step === "zero" ? `Back to iteration ${ITERATIONS}` : "Look at iteration 0";
    one(".insight").hidden = !state.base; // of a network that is not trained yet there is nothing to see
    one(".keep").hidden = !state.base || busy;
    const next = busy ? "stop" : { train: "race", race: "zero", zero: "again", again: "again", prune: "prune" }[step];
    for (const [name, each] of Object.entries(button)) each.classList.toggle("next", name === (next || "train"));
    if (focused && button[focused].hidden) (button[next] || button[state.base ? "race" : "train"]).focus();
    one(".said").innerHTML = words[step]();
    draw();
    if (state.base && !busy) prune();
  };

  // The scales of the recorded chart; see `chart` in ticket_lab.py.
  const x = (iteration) => 36 + 2 * iteration;
  const y = (accuracy) => 270 - 250 * accuracy;
  const path = (looks, name, kind) => {
    const points = looks.map((look) => `${x(look.iteration)} ${y(look.looks[name].accuracy).toFixed(1)}`);
    return `<path class="${kind} ${name}" d="M${points.join("L")}"/>`;
  };

  const ends = (looks, place = x(ITERATIONS), height = y) => {
    const labels = Object.entries(looks).map(([name, { accuracy }]) => ({ name, accuracy, at: height(accuracy) }));
    labels.sort((a, b) => a.at - b.at);
    for (let turn = 0; turn < 50; turn++) {
      labels.slice(1).forEach((lower, i) => {
        const upper = labels[i], middle = (upper.at + lower.at) / 2;
        if (lower.at - upper.at < 14.9) [upper.at, lower.at] = [middle - 7.5, middle + 7.5];
      });
    }
    return labels.map(({ name, accuracy, at }) =>
      `<path class="leader ${name}" d="M${place} ${height(accuracy)}L${place + 10} ${at}"/>` +
      `<text x="${place + 13}" y="${at + 4}">${name} ${(100 * accuracy).toFixed(0)} %</text>`).join("");
  };

  const draw = () => {
    if (!state.looks.length) return;
    const { looks, iteration } = state.looks[state.looks.length - 1];
    const raced = Boolean(looks.ticket), zero = state.step === "zero";
    const ghosts = races.slice(0, raced && root.dataset.state === "done" ? -1 : undefined);
    const old = ghosts.flatMap(({ curves }) => RACERS.map((name) =>
      path(curves[name].map((point) => ({ ...point, looks: { [name]: point } })), name, "ghost")));
    const lines = Object.keys(looks).reverse().map((name) => path(state.looks, name, "line"));
    if (raced) lines.unshift(path(state.dense, "dense", "line"));
    const named = raced && !zero && iteration === ITERATIONS ? { ...looks, dense: state.dense[state.dense.length - 1].looks.dense } : looks;
    const dots = Object.entries(state.looks[0].looks).map(([name, { accuracy }]) =>
      `<circle class="${name}" cx="${x(0)}" cy="${y(accuracy)}" r="${zero ? 6 : 3}"/>`);
    const labels = zero ? ends(state.looks[0].looks, x(0) + 4) : ends(named, x(iteration));
    chart.classList.toggle("zero", zero);
    chart.innerHTML = [...old, ...lines, labels, ...dots].join("");
    const at = zero ? state.looks[0] : { looks, iteration };
    caption.textContent = raced
      ? `Seed ${state.seed}, ${state.keep} % kept${state.rounds.length ? ` after ${state.rounds.join(" and ")} %` : ""}. ` +
        "Grey: the dense network, which keeps all." + (ghosts.length ? " Pale: earlier races." : "")
      : `Seed ${state.seed}: the dense network, which keeps all its connections.`;
    numbers(at);
    one(".chart").setAttribute("aria-label", `Accuracy over iterations; ${one(".numbers").textContent}`);
    one(".guesses tbody").innerHTML = Object.entries(at.looks).map(([name, look]) => guessed(name, look.guesses)).join("");
    rounds();
  };

  const numbers = ({ iteration, looks }) => {
    const first = (name) => state.looks.find((look) => look.looks[name].accuracy >= 0.8)?.iteration;
    const parts = Object.entries(looks).map(([name, { accuracy }]) =>
      `<span class="${name}">${name} <b>${percent(accuracy)}</b> <small>${first(name) === undefined ? "not yet at 80 %" : first(name) ? `80 % at iteration ${first(name)}` : "80 % from the start"}</small></span>`);
    one(".numbers").innerHTML = `<span>iteration <b>${iteration}</b></span> ${parts.join(" ")}`;
  };

  const guessed = (name, guesses) => {
    const cells = [...guesses.subarray(0, 10)].map((guess, i) =>
      guess === truth[i] ? `<td>${guess}</td>` : `<td><s title="wrong: it is a ${truth[i]}">${guess}</s></td>`);
    return `<tr><th scope="row" class="${name}">${name}</th>${cells.join("")}</tr>`;
  };

  // Accuracy at the end over the connections kept, a point a race.
  const rounds = () => {
    const points = [...state.points].sort((a, b) => b.keep - a.keep);
    const figure = one(".rounds"), across = (keep) => 36 + 150 * Math.log10(100 / keep), up = (accuracy) => 180 - 340 * (accuracy - 0.5);
    figure.hidden = points.length < 3;
    if (figure.hidden) return;
    const parts = [50, 60, 70, 80, 90, 100].map((value) =>
      `<path class="rule" d="M36 ${up(value / 100)}H336"/><text x="31" y="${up(value / 100) + 4}" text-anchor="end">${value}</text>`);
    for (const keep of [100, 50, 20, 10, 5, 2, 1]) parts.push(`<text x="${across(keep)}" y="197" text-anchor="middle">${keep}</text>`);
    parts.push('<text x="186" y="214" text-anchor="middle">% of the connections kept</text>');
    for (const name of [...RACERS].reverse()) {
      const line = points.map(({ keep, looks }) => [across(keep), up(Math.max(0.5, (looks[name] || looks.dense).accuracy))]);
      parts.push(`<path class="line ${name}" d="M${line.join("L")}"/>`);
      for (const [cx, cy] of line) parts.push(`<circle class="${name}" cx="${cx}" cy="${cy}" r="4"/>`);
    }
    const deepest = points[points.length - 1];
    parts.push(ends(deepest.looks, across(deepest.keep), (accuracy) => up(Math.max(0.5, accuracy))));
    figure.firstElementChild.innerHTML = parts.join("");
    figure.firstElementChild.setAttribute("aria-label", points.map(({ keep, looks }) =>
      `${keep} %: ${Object.entries(looks).map(([name, look]) => `${name} ${percent(look.accuracy)}`).join(", ")}`).join("; "));
  };

  // What the slider leaves: the map, the histogram, and how far that network gets as it is.
  const prune = () => {
    const mask = pruned(), alive = mask["fc1.weight"], weights = state.base.weights["fc1.weight"];
    const canvas = one("canvas").getContext("2d"), image = canvas.createImageData(28, 28);
    const left = new Uint8Array(784), all = new Uint32Array(48), kept = new Uint32Array(48);
    for (let i = 0; i < alive.length; i++) {
      const bin = Math.max(0, Math.min(47, Math.floor(24 + 120 * weights[i]))); // -0.2 to 0.2
      if (state.base.mask["fc1.weight"][i]) all[bin] += 1;
      left[i % 784] += alive[i];
      kept[bin] += alive[i];
    }
    left.forEach((count, i) => image.data.set([0, 114, 178, 255 * Math.sqrt(count / 100)], 4 * i));
    canvas.putImageData(image, 0, 0);
    const most = Math.max(...all);
    const bars = (bins, kind) => [...bins].map((count, i) => count &&
      `<rect class="${kind}" x="${4 + 4 * i}" width="3.4" y="${(100 - 96 * count / most).toFixed(1)}" height="${(96 * count / most).toFixed(1)}"/>`);
    one(".insight svg").innerHTML = [...bars(all, "dense"), ...bars(kept, "ticket")].filter(Boolean).join("") +
      '<text x="4" y="114">−0.2</text><text x="100" y="114" text-anchor="middle">0</text>' +
      '<text x="196" y="114" text-anchor="end">0.2</text>';
    const count = left.reduce((sum, each) => sum + each, 0);
    one("canvas").setAttribute("aria-label", `Map of the connections of each pixel: ${count.toLocaleString("en")} of 78,400 left`);
    const weak = maths.network({ weights: state.base.weights, mask }, unseen, truth).look(0);
    one(".keep p").textContent = `${count.toLocaleString("en")} of 78,400 connections to the hidden layer. Of the last layer's ` +
      "1,000 half as large a share is pruned. Not " +
      `trained again, the network gets ${percent(weak.accuracy)} right.`;
    if (state.step === "train") one(".guesses tbody").innerHTML = guessed("pruned", weak.guesses);
    one(".keep output").textContent = `${state.keep} %`;
    slider.value = 200 - 100 * Math.log10(100 / state.keep);
    slider.setAttribute("aria-valuetext", `${state.keep} % of the connections`);
  };

  const shown = (keep) => (keep < 10 ? Math.max(1, Math.round(10 * keep) / 10) : Math.round(2 * keep) / 2);
  const keepTo = (keep) => {
    const most = state.rounds[state.rounds.length - 1] ?? 100;
    state.keep = Math.min(shown(keep), most);
    prune();
  };

  // The slider goes from all connections to where it will stand, once, to show what it does.
  let settle = () => {}; // at once
  const sweep = () => {
    const end = state.keep, begun = performance.now();
    let frame = 0;
    if (calm) return;
    settle = () => {
      cancelAnimationFrame(frame);
      settle = () => {};
      keepTo(end);
    };
    const move = (now) => {
      const part = Math.max(0, now - begun) / 1500;
      if (part >= 1) return settle();
      keepTo(100 * (end / 100) ** part);
      frame = requestAnimationFrame(move);
    };
    frame = requestAnimationFrame(move);
  };

  one(".guesses thead").innerHTML = `<tr><td></td>${[...truth.subarray(0, 10)].map((digit) =>
    `<th scope="col"><canvas width="28" height="28" role="img" aria-label="a ${digit}"></canvas></th>`).join("")}</tr>`;
  root.querySelectorAll(".guesses canvas").forEach((canvas, digit) => {
    const context = canvas.getContext("2d"), image = context.createImageData(28, 28);
    for (let i = 0; i < 784; i++) image.data[4 * i + 3] = 255 * unseen[784 * digit + i];
    context.putImageData(image, 0, 0);
  });

  // --- by hand, and by the address --------------------------------------------------------------

  slider.addEventListener("input", () => {
    const at = slider.value;
    settle();
    keepTo(100 / 10 ** ((200 - at) / 100));
  });
  slider.addEventListener("change", hash);
  for (const [name, act] of Object.entries(doing)) button[name].addEventListener("click", () => (settle(), go(act)));
  button.stop.addEventListener("click", () => stop());
  addEventListener("pagehide", () => stop());
  document.addEventListener("visibilitychange", () => document.hidden && stop());

  const read = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const keeps = (wanted.get("keep") || "").split(",").map(Number);
    if (/^\d{1,9}$/.test(wanted.get("seed"))) state.seed = Number(wanted.get("seed"));
    const fit = keeps.every((keep, i) => keep >= 1 && keep <= (i ? keeps[i - 1] : 100));
    if (fit) state.keep = keeps[0];
    const step = wanted.get("step");
    if (STEPS.includes(step)) {
      // ready for a moment, so that what comes is seen to begin
      setTimeout(() => root.dataset.state === "ready" && go(step === "train" ? doing.train : async () => (await all(fit ? keeps : [state.keep]), step)), 600);
    }
  };
  addEventListener("hashchange", () => {
    if (!location.hash.includes("seed=")) return;
    stop();
    Object.assign(state, { base: null, raced: null, rounds: [], looks: [] });
    enter("ready");
    read();
  });

  window.ticketLab = { races, work };
  enter("ready");
  read();
});
