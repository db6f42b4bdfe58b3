/**
 * What a store must hold after its process, or its power, died: replayed from a journal that lies
 * elsewhere and survives. Contents are one generation for each sector (0 for zeroes), as
 * `sector-stamps.mjs` writes them.
 *
 * An operation is noted before it begins and once more when it was acknowledged, so at most the
 * last one is in doubt: it is there wholly, or not at all.
 */
import { readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs';

/** A disk that is written to. */
class Head {
  /** @param {Uint32Array} durable generation of each sector that survives in any case */
  constructor(durable) {
    this.durable = durable;
    this.last = durable.slice();
    /** @type {Map<number, Set<number>>} what else a sector may hold: written since, not flushed */
    this.later = new Map();
  }

  write(generation, first, count) {
    for (let sector = first; sector < first + count; sector += 1) {
      if (!this.later.has(sector)) this.later.set(sector, new Set());
      this.later.get(sector).add(generation);
      this.last[sector] = generation;
    }
  }

  settle(first = 0, count = this.last.length) {
    for (const sector of [...this.later.keys()]) {
      if (sector >= first && sector < first + count) this.later.delete(sector);
    }
    this.durable.set(this.last.subarray(first, first + count), first);
  }

  /** @returns what is wrong with these contents, undefined when nothing is */
  judge(found) {
    const wrong = found.findIndex(
      (generation, sector) =>
        generation !== this.durable[sector] && !this.later.get(sector)?.has(generation),
    );
    if (wrong < 0) return undefined;
    const others = [...(this.later.get(wrong) ?? [])].join(', ');
    const wanted = `${this.durable[wrong]}${others && `, ${others}`}`;
    return `sector ${wrong} holds ${found[wrong]}, not ${wanted}`;
  }
}

function exactly(found, wanted) {
  const wrong = found.findIndex((generation, sector) => generation !== wanted[sector]);
  return wrong < 0 ? undefined : `sector ${wrong} holds ${found[wrong]}, not ${wanted[wrong]}`;
}

export class StoreModel {
  /** @type {Map<string, {head: Head, snapshots: Map<string, Uint32Array>}>} */
  vms = new Map();
  generation = 1;
  /** The operation that was under way at the end, if any. */
  pending;

  /** @param {'process' | 'power'} death what the journal's writer died of */
  static load(path, death) {
    const model = new StoreModel();
    for (const line of readJournal(path)) model.#replay(line, death);
    return model;
  }

  #replay(line, death) {
    if (line.contents !== undefined) this.#takeOver(line);
    else if (line.done === true) this.acknowledge(death);
    else this.begin(line);
  }

  begin(operation) {
    this.pending = operation;
    const { op, vm, generation, first, count } = operation;
    if (generation !== undefined) this.generation = Math.max(this.generation, generation + 1);
    if (op === 'write') this.vms.get(vm).head.write(generation, first, count);
    if (op === 'discard') this.vms.get(vm).head.write(0, first, count);
  }

  /** The operation under way is done, and whoever asked for it knows. */
  acknowledge(death) {
    const { pending } = this;
    this.pending = undefined;
    if (pending !== undefined) this.#settle(pending, death);
  }

  #settle({ op, vm, snapshot, to, sectors, generation, first, count }, death) {
    const { head, snapshots } = this.vms.get(vm) ?? {};
    const add = (name, contents) =>
      this.vms.set(name, { head: new Head(contents.slice()), snapshots: new Map() });
    if (op === 'write' || op === 'discard') {
      // What was acknowledged outlives the process, flushed or not.
      if (death === 'process') head.settle(first, count);
    } else if (op === 'flush') head.settle();
    else if (op === 'create') add(vm, new Uint32Array(sectors));
    else if (op === 'import') add(vm, new Uint32Array(sectors).fill(generation));
    else if (op === 'snapshot') {
      head.settle();
      snapshots.set(snapshot, head.durable.slice());
    } else if (op === 'delete-snapshot') snapshots.delete(snapshot);
    else if (op === 'restore') this.vms.get(vm).head = new Head(snapshots.get(snapshot).slice());
    else if (op === 'clone') add(to, snapshots.get(snapshot));
    else if (op === 'delete') this.vms.delete(vm);
    else if (op === 'rename') {
      this.vms.set(to, this.vms.get(vm));
      this.vms.delete(vm);
    }
  }

  /**
   * @param {Map<string, {head: Uint32Array, snapshots: Map<string, Uint32Array>}>} found what the
   * store holds
   * @returns {string[]} what is wrong with it
   */
  judge(found) {
    const problems = [];
    for (const name of new Set([...this.vms.keys(), ...found.keys()])) {
      const problem = this.#judgeVm(name, found);
      if (problem !== undefined) problems.push(`${name}: ${problem}`);
    }
    const { op, vm, to } = this.pending ?? {};
    if (op === 'rename' && found.has(vm) === found.has(to)) {
      problems.push(`${vm} should have been renamed to ${to}, or not`);
    }
    return problems;
  }

  #judgeVm(name, found) {
    const known = this.vms.get(name);
    const there = found.get(name);
    const { op, vm, to, sectors, snapshot, generation } = this.pending ?? {};
    const isNew = (op === 'create' || op === 'import') && vm === name;
    if (known === undefined) {
      if (isNew) return exactly(there.head, new Uint32Array(sectors).fill(generation ?? 0));
      if (op === 'clone' && to === name) {
        return exactly(there.head, this.vms.get(vm).snapshots.get(snapshot));
      }
      if (op === 'rename' && to === name) return this.#judgeContents(this.vms.get(vm), there, {});
      return 'nobody made it';
    }
    if (there === undefined) {
      const mayBeGone = vm === name && (op === 'delete' || op === 'rename');
      return mayBeGone ? undefined : 'it is gone';
    }
    return this.#judgeContents(known, there, vm === name ? this.pending : {});
  }

  #judgeContents(known, there, { op, snapshot }) {
    let problem = known.head.judge(there.head);
    if (problem !== undefined && op === 'restore') {
      problem = exactly(there.head, known.snapshots.get(snapshot));
    }
    if (problem !== undefined) return problem;
    for (const name of new Set([...known.snapshots.keys(), ...there.snapshots.keys()])) {
      const wanted = known.snapshots.get(name);
      const is = there.snapshots.get(name);
      const inDoubt = name === snapshot;
      let wrong;
      if (is === undefined) {
        wrong = inDoubt && op === 'delete-snapshot' ? undefined : 'it is gone';
      } else if (wanted === undefined) {
        wrong = inDoubt && op === 'snapshot' ? known.head.judge(is) : 'nobody took it';
      } else wrong = exactly(is, wanted);
      if (wrong !== undefined) return `snapshot ${name}: ${wrong}`;
    }
    return undefined;
  }

  /** Begins a journal anew with what a store was found to hold. */
  rebase(path, found) {
    const contents = [...found].map(([name, { head, snapshots }]) => ({
      name,
      head: encode(head),
      snapshots: [...snapshots].map(([each, sectors]) => ({ name: each, head: encode(sectors) })),
    }));
    const text = `${JSON.stringify({ generation: this.generation, contents })}\n`;
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
    this.#takeOver({ generation: this.generation, contents });
  }

  #takeOver({ generation, contents }) {
    this.generation = generation;
    this.pending = undefined;
    this.vms = new Map(
      contents.map(({ name, head, snapshots }) => [
        name,
        {
          head: new Head(decode(head)),
          snapshots: new Map(snapshots.map((each) => [each.name, decode(each.head)])),
        },
      ]),
    );
  }
}

/** Notes operations as they begin and as they are acknowledged. */
export class Journal {
  #fd;
  #model;

  constructor(fd, model) {
    this.#fd = fd;
    this.#model = model;
  }

  /** Runs `work` between the two notes. */
  async run(operation, work) {
    writeSync(this.#fd, `${JSON.stringify(operation)}\n`);
    this.#model.begin(operation);
    const result = await work();
    writeSync(this.#fd, '{"done":true}\n');
    this.#model.acknowledge('power');
    return result;
  }
}

/** The last line may have been cut short: it counts for nothing then. */
function readJournal(path) {
  let text;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));
}

function encode(sectors) {
  return Buffer.from(sectors.buffer, sectors.byteOffset, sectors.byteLength).toString('base64');
}

function decode(text) {
  const bytes = Buffer.from(text, 'base64');
  const sectors = new Uint32Array(bytes.length / 4);
  for (let at = 0; at < sectors.length; at += 1) sectors[at] = bytes.readUInt32LE(at * 4);
  return sectors;
}
