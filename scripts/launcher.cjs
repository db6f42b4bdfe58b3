#!/usr/bin/env node
/**
 * Becomes dist/cli/main.js, the command `layerdisk`: starts the program beside it with the code
 * that V8 made of it when it was built, for reading and compiling it take longer than most commands.
 * Another version of V8 does not take that code, and compiles the program.
 */
'use strict';

const { readFileSync } = require('node:fs');
const { wrap } = require('node:module');
const { Script } = require('node:vm');

const program = `${__dirname}/program.cjs`;

function codeCache() {
  try {
    return readFileSync(`${__dirname}/program.cache`);
  } catch {
    // It only saves time.
    return undefined;
  }
}

// It is ASCII: the bundler writes all else in escapes.
const script = new Script(wrap(readFileSync(program, 'latin1')), {
  filename: program,
  cachedData: codeCache(),
});
const loaded = { exports: {} };
script.runInThisContext()(loaded.exports, require, loaded, program, __dirname);
const { runCommandLine } = loaded.exports;

if (require.main === module) void runCommandLine(process.argv.slice(2));
else module.exports = { script, runCommandLine };
