// The mathematics of ticket-lab.js: a network of 784, 100 and 10 units, trained and pruned by the
// recipe of the paper. The page draws with it, and a worker trains with it. The worker is made of
// this text, because a page that is opened from a folder may not start one from a file.
//
// Names and shapes are those of the Python engine: weights are {"fc1.weight": (100, 784),
// "fc1.bias": (100), "output.weight": (10, 100), "output.bias": (10)}, outputs first, flat; masks
// are {"fc1.weight", "output.weight"}, 1 where a connection is left.

function ticketMaths() {
  "use strict";
  const LAYERS = [["fc1", 100, 784], ["output", 10, 100]]; // name, outputs, inputs
  const RATE = 0.0012, BETA1 = 0.9, BETA2 = 0.999, EPSILON = 1e-8; // Adam's
  const BATCH = 60;

  // Numbers in [0, 1) by a generator of its own for each seed and purpose (sfc32).
  function randomOf(seed, purpose) {
    let a = seed | 0, b = purpose | 0, c = 0x9e3779b9, count = 1;
    const next = () => {
      const sum = (a + b + count) | 0;
      count = (count + 1) | 0;
      a = b ^ (b >>> 9);
      b = (c + (c << 3)) | 0;
      c = (((c << 21) | (c >>> 11)) + sum) | 0;
      return (sum >>> 0) / 4294967296;
    };
    for (let i = 0; i < 15; i++) next();
    return next;
  }

  function shuffled(count, random) {
    const order = Int32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  // Glorot's normal numbers, those beyond two sigma drawn again; biases are zero.
  function initialise(random) {
    const weights = {};
    for (const [name, outputs, inputs] of LAYERS) {
      const sigma = Math.sqrt(2 / (outputs + inputs));
      weights[`${name}.bias`] = new Float32Array(outputs);
      weights[`${name}.weight`] = Float32Array.from({ length: outputs * inputs }, () => {
        for (;;) {
          const z = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
          if (Math.abs(z) <= 2) return sigma * z;
        }
      });
    }
    return weights;
  }

  const fullMask = () =>
    Object.fromEntries(LAYERS.map(([name, outputs, inputs]) =>
      [`${name}.weight`, new Uint8Array(outputs * inputs).fill(1)]));

  const survivors = (mask) => mask.reduce((sum, alive) => sum + alive, 0);

  // A half goes to the even number, as in Python.
  function rounded(x) {
    const below = Math.floor(x), rest = x - below;
    return below + (rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? 1 : 0);
  }

  // The mask without the smallest weights of each layer: `rate` of those of fc1, half as many of
  // those of the output layer; of equals the first go.
  function prune(weights, mask, rate) {
    const pruned = {};
    for (const [name, share] of [["fc1.weight", rate], ["output.weight", rate / 2]]) {
      const kept = (pruned[name] = mask[name].slice());
      const sizes = weights[name].map(Math.abs);
      const sorted = sizes.filter((_, i) => kept[i]).sort();
      const count = rounded(share * sorted.length);
      if (!count) continue;
      const threshold = sorted[count - 1];
      let ties = count - sorted.findIndex((size) => size === threshold);
      for (let i = 0; i < kept.length; i++) {
        if (kept[i] && (sizes[i] < threshold || (sizes[i] === threshold && ties-- > 0))) kept[i] = 0;
      }
    }
    return pruned;
  }

  // As many survivors in each layer, anywhere.
  function randomMask(mask, random) {
    const other = {};
    for (const [name, alive] of Object.entries(mask)) {
      other[name] = new Uint8Array(alive.length);
      for (const i of shuffled(alive.length, random).subarray(0, survivors(alive))) other[name][i] = 1;
    }
    return other;
  }

  // The indices of each iteration's digits: all of them in a new order, again and again.
  function batches(count, examples, random) {
    let left = [];
    return Array.from({ length: count }, () => {
      while (left.length < BATCH) left = [...left, ...shuffled(examples, random)];
      return left.splice(0, BATCH);
    });
  }

  const values = (numbers) => ({
    now: Float32Array.from(numbers),
    gradient: new Float32Array(numbers.length),
    mean: new Float32Array(numbers.length),
    square: new Float32Array(numbers.length),
  });

  // The survivors of a layer, input by input: those of input i are start[i] to start[i + 1], and
  // lead to `unit`. So neither pruned weights nor black pixels cost anything.
  function pack(weights, mask, [name, outputs, inputs]) {
    const alive = mask[`${name}.weight`], all = weights[`${name}.weight`];
    const start = new Int32Array(inputs + 1), unit = [], weight = [];
    for (let i = 0; i < inputs; i++) {
      for (let o = 0; o < outputs; o++) {
        if (!alive[o * inputs + i]) continue;
        unit.push(o);
        weight.push(all[o * inputs + i]);
      }
      start[i + 1] = unit.length;
    }
    const bias = values(weights[`${name}.bias`]);
    return { name, outputs, inputs, start, unit: Int32Array.from(unit), weight: values(weight), bias };
  }

  function unpack({ name, outputs, inputs, start, unit, weight, bias }) {
    const all = new Float32Array(outputs * inputs);
    for (let i = 0; i < inputs; i++) {
      for (let k = start[i]; k < start[i + 1]; k++) all[unit[k] * inputs + i] = weight.now[k];
    }
    return { [`${name}.weight`]: all, [`${name}.bias`]: bias.now };
  }

  // What a layer makes of the numbers of `x` from `at` on.
  function forward({ inputs, start, unit, weight, bias }, x, at, out) {
    const now = weight.now;
    out.set(bias.now);
    for (let i = 0; i < inputs; i++) {
      const input = x[at + i];
      if (input) for (let k = start[i]; k < start[i + 1]; k++) out[unit[k]] += input * now[k];
    }
  }

  // Adds a digit's gradient; delta: that of the layer's outputs; below: where that of its inputs
  // goes, which ReLU holds back where it let nothing through.
  function backward({ inputs, outputs, start, unit, weight, bias }, x, at, delta, below) {
    const { now, gradient } = weight;
    for (let o = 0; o < outputs; o++) bias.gradient[o] += delta[o];
    for (let i = 0; i < inputs; i++) {
      const input = x[at + i];
      if (below) below[i] = 0;
      if (!input) continue;
      for (let k = start[i]; k < start[i + 1]; k++) {
        gradient[k] += input * delta[unit[k]];
        if (below) below[i] += now[k] * delta[unit[k]];
      }
    }
  }

  function adam({ now, gradient, mean, square }, iteration) {
    const step = RATE / (1 - BETA1 ** iteration), unbiased = Math.sqrt(1 - BETA2 ** iteration);
    for (let k = 0; k < now.length; k++) {
      const g = gradient[k];
      mean[k] = BETA1 * mean[k] + (1 - BETA1) * g;
      square[k] = BETA2 * square[k] + (1 - BETA2) * g * g;
      if (square[k]) now[k] -= (step * mean[k]) / (Math.sqrt(square[k]) / unbiased + EPSILON);
    }
    gradient.fill(0);
  }

  // A network to train; images: pixels from 0 to 1, 784 a digit.
  function network({ weights, mask }, images, labels) {
    const layers = LAYERS.map((layer) => pack(weights, mask, layer));
    const [fc1, output] = layers;
    const hidden = new Float64Array(100), logits = new Float64Array(10), below = new Float64Array(100);
    let iteration = 0;

    const guess = (digit) => {
      forward(fc1, images, digit * 784, hidden);
      for (let i = 0; i < 100; i++) if (hidden[i] < 0) hidden[i] = 0;
      forward(output, hidden, 0, logits);
      return logits.indexOf(Math.max(...logits));
    };

    // Trains on the digits of a batch, whose cross-entropy is averaged.
    const train = (batch) => {
      for (const digit of batch) {
        const most = logits[guess(digit)];
        let sum = 0;
        for (let o = 0; o < 10; o++) sum += logits[o] = Math.exp(logits[o] - most);
        for (let o = 0; o < 10; o++) {
          logits[o] = (logits[o] / sum - (o === labels[digit] ? 1 : 0)) / batch.length;
        }
        backward(output, hidden, 0, logits, below);
        backward(fc1, images, digit * 784, below);
      }
      iteration += 1;
      for (const { weight, bias } of layers) [weight, bias].forEach((part) => adam(part, iteration));
    };

    // Of the digits from `from` on: what it takes them for, and how many of them rightly.
    const look = (from) => {
      const guesses = Uint8Array.from(labels.subarray(from), (_, i) => guess(from + i));
      const right = guesses.reduce((sum, digit, i) => sum + (digit === labels[from + i] ? 1 : 0), 0);
      return { accuracy: right / guesses.length, guesses };
    };

    return { train, look, now: () => ({ weights: Object.assign({}, ...layers.map(unpack)), mask }) };
  }

  // Trains networks, {name: {weights, mask}}, in lockstep, all on the same batches; `show` gets the
  // iteration and {name: look} at the start and after every `every` iterations. The first `training`
  // digits train, the others tell the accuracy.
  function run({ networks, images, labels, training, batches, every }, show) {
    const entries = Object.entries(networks).map(([name, ticket]) => [name, network(ticket, images, labels)]);
    const of = (each) => Object.fromEntries(entries.map(([name, one]) => [name, each(one)]));
    show(0, of((one) => one.look(training)));
    batches.forEach((batch, i) => {
      for (const [, one] of entries) one.train(batch);
      if ((i + 1) % every === 0) show(i + 1, of((one) => one.look(training)));
    });
    return of((one) => one.now());
  }

  const dense = (seed) => ({ weights: initialise(randomOf(seed, 0)), mask: fullMask() });

  // The three of a race: the mask with the first weights of the dense network, with new ones, and
  // another mask. `round` counts prunings, so that each draws numbers of its own.
  function racers(seed, round, mask) {
    const random = (purpose) => randomOf(seed, 10 * round + purpose);
    return {
      ticket: { weights: dense(seed).weights, mask },
      reinit: { weights: initialise(random(2)), mask },
      random: { weights: initialise(random(3)), mask: randomMask(mask, random(4)) },
    };
  }

  const orderOf = (seed, round, count, examples) => batches(count, examples, randomOf(seed, 10 * round + 1));

  const scaled = (pixels) => Float32Array.from(pixels, (pixel) => pixel / 255);

  return { fullMask, prune, network, run, dense, racers, orderOf, scaled };
}

// What the worker does with a job: train the networks that it is given, on the batches that it is
// given, or else those of a seed: the dense network, or, with a mask, the three of a race.
function ticketWorker() {
  const maths = ticketMaths();
  self.onmessage = ({ data: job }) => {
    const { seed, round = 0, mask, iterations, pixels, labels, training, every } = job;
    const networks = job.networks || (mask ? maths.racers(seed, round, mask) : { dense: maths.dense(seed) });
    const batches = job.batches || maths.orderOf(seed, round, iterations, training);
    const images = maths.scaled(pixels);
    const show = (iteration, looks) => self.postMessage({ iteration, looks });
    const trained = maths.run({ networks, images, labels, training, batches, every }, show);
    self.postMessage({ trained });
  };
}
