/**
 * Writes the first LENGTH bytes of FILE, all BYTE, through a mapping and takes that away.
 *
 * node mapping-writer.mjs FILE LENGTH BYTE
 */
import { openSync } from 'node:fs';
import { writeByMapping } from './memory-map.mjs';

const [file = '', length, byte] = process.argv.slice(2);
writeByMapping(openSync(file, 'r+'), Number(length), Number(byte), () => console.log('written'));
