/**
 * Becomes NAME.js beside each program NAME.cjs in dist/: starts it with the code that V8 made of it
 * when it was built (NAME.cache), for reading and compiling a program takes longer than most
 * commands, and most of what a daemon needs to take a mount over. Another version of V8 does not
 * take that code, and compiles the program.
 */
'use strict';

// The shell in front of it has unset it, unless Node.js was told to run this: for what this starts.
delete process.env.NODE_EXTRA_CA_CERTS;

const { readFileSync } = require('node:fs');
const { wrap } = require('node:module');
const { Script } = require('node:vm');

const stem = __filename.slice(0, -'.js'.length);

function codeCache() {
  try {
    return readFileSync(`${stem}.cache`);
  } catch {
    // It only saves time.
    return undefined;
  }
}

// It is ASCII: the bundler writes all else in escapes.
const script = new Script(wrap(readFileSync(`${stem}.cjs`, 'latin1')), {
  filename: `${stem}.cjs`,
  cachedData: codeCache(),
});
const loaded = { exports: {} };
script.runInThisContext()(loaded.exports, require, loaded, __filename, __dirname);
module.exports = { ...loaded.exports, script };
// The command itself: others may have use for its functions.
if (require.main === module) loaded.exports.runCommandLine?.(process.argv.slice(2));
