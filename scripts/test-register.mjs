/** Preloaded by the test runner into every test file's process: see test-loader.mjs. */
import { register } from 'node:module';

register('./test-loader.mjs', import.meta.url);
