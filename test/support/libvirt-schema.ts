/** libvirt's own schema of a domain, which scripts/libvirt-schemas fetches. */
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type ProgramResult, runProgram } from './run-program.js';

const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'layerdisk-test');
const PARTS = join(CACHE, 'libvirt');

/** Why no domain can be judged here; false where one can. For a test's `skip`. */
export function cannotValidate(): string | false {
  return existsSync(join(PARTS, 'complete')) ? false : 'no schemas: scripts/libvirt-schemas';
}

/** What virt-xml-validate does: code 0 for a valid domain. */
export function validateDomain(path: string): Promise<ProgramResult> {
  const schema = join(PARTS, 'domain.rng');
  return runProgram(join(PARTS, 'xmllint'), ['--noout', '--nonet', '--relaxng', schema, path]);
}
