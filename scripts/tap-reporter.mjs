/**
 * The reporter tap pipes its results through: one line per test file, every failure in full, the
 * reason of every skip, and as the last line `N passed, N failed, N skipped`.
 *
 * With TAP_TALLY_FILE set the three numbers go to that file instead of the last line, so that a
 * script can add its own findings before it prints the total.
 */
import { writeFileSync } from 'node:fs';
import { Transform } from 'node:stream';
import { inspect } from 'node:util';
import { TapTally, tallyOf } from './tap-tally.mjs';

/** What the runner says about the child process; the rest of it is the command line. */
const FILE_DIAG_NOISE = new Set(['stdio', 'cwd', 'externalID', 'command', 'args', 'jobId']);

export default class Reporter extends Transform {
  #tally;

  constructor() {
    super();
    this.#tally = new TapTally((file) => this.push(describeFile(file)));
  }

  _transform(chunk, _encoding, done) {
    this.#tally.write(chunk);
    done();
  }

  _flush(done) {
    const { tally, problems } = this.#tally.end();
    for (const problem of problems) this.push(`FAIL ${problem}\n`);
    const tallyFile = process.env.TAP_TALLY_FILE;
    if (tallyFile) writeFileSync(tallyFile, `${tally.passed} ${tally.failed} ${tally.skipped}\n`);
    else this.push(`\n${summary(tally)}\n`);
    done();
  }
}

function summary(tally) {
  return `${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`;
}

function describeFile(file) {
  const tally = tallyOf(file);
  const failed = tally.failed > 0;
  const word = failed ? 'FAIL' : tally.passed > 0 ? 'ok  ' : 'skip';
  const time = file.timeMs === undefined ? '' : `, ${(file.timeMs / 1000).toFixed(1)} s`;
  let text = `${word} ${file.name}: ${summary(tally)}${time}\n`;
  const trail = failed ? [file.name] : [];
  text += describeGroup(file, trail, failed);
  return failed ? `${text}\n` : text;
}

function describeGroup(group, trail, withExtra) {
  let text = '';
  for (const reason of group.skips) text += `     skipped ${[...trail, reason].join(' > ')}\n`;
  for (const problem of group.problems) {
    text += `\n  ${[...trail, problem.name].join(' > ')}\n${describeDiag(problem.diag)}`;
  }
  if (withExtra && group.extra.trim() !== '') text += `\n  printed:\n${indent(group.extra)}`;
  for (const child of group.children) {
    text += describeGroup(child, [...trail, child.name], withExtra);
  }
  return text;
}

function describeDiag(diag) {
  if (diag === undefined) return '';
  const place = diag.at;
  let text = place?.fileName ? `    at ${place.fileName}:${place.lineNumber}\n` : '';
  for (const [key, value] of Object.entries(diag)) {
    if (key === 'at' || FILE_DIAG_NOISE.has(key)) continue;
    const shown = typeof value === 'string' ? value : inspect(value, { depth: 8 });
    text += shown.includes('\n') ? `    ${key}:\n${indent(shown)}` : `    ${key}: ${shown}\n`;
  }
  return text;
}

function indent(text) {
  return text
    .replace(/\n+$/, '')
    .split('\n')
    .map((line) => `      ${line}\n`)
    .join('');
}
