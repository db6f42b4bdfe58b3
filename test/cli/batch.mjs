/**
 * Runs many command lines in one process, since starting one each takes most of a test's time.
 * Arguments: the compiled program.js. Standard input: a JSON list of command lines, each a list of
 * words. Standard output: a JSON list of what each wrote to its standard output, or its error.
 */
import { readFileSync } from 'node:fs';

const { buildProgram } = await import(process.argv[2]);
const results = [];
const { stdout } = process;
const write = stdout.write.bind(stdout);
for (const words of JSON.parse(readFileSync(0, 'utf8'))) {
  let text = '';
  stdout.write = (chunk) => {
    text += chunk;
    return true;
  };
  try {
    await (await buildProgram(words)).parseAsync();
    results.push({ stdout: text });
  } catch (error) {
    results.push({ stdout: text, error: String(error) });
  }
}
write(JSON.stringify(results));
