/** Types for the JavaScript that runs outside of the test runner. */
export function sectorOf(number: number, sectors: number): number;
