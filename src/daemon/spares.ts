/**
 * Daemons that have their program loaded and wait: loading takes most of the time that a start
 * takes, so the next ones do it ahead.
 */

/** What a spare is to those who keep it: a `DaemonLife`. */
interface Waiting {
  /** Whether its program could be loaded. */
  readonly warm: Promise<boolean>;
  /** Resolves when it has ended. */
  readonly over: Promise<unknown>;
  /** Has it go before others until it is loaded. */
  hurryUp(): void;
  discard(): Promise<void>;
}

/** After a death the next one is likely: for so long, one spare is no longer enough. */
const ALERT_MS = 30_000;
const USUALLY = 1;
/** One takes over while the other one still loads. */
const ON_ALERT = 2;

export class Spares<Life extends Waiting> {
  readonly #load: () => Life;
  /** The one that was loaded first comes first. */
  readonly #lives: Life[] = [];
  readonly #alertMs: number;
  #alert: NodeJS.Timeout | undefined;

  /** @param load starts a daemon that waits after it has loaded. */
  constructor(load: () => Life, alertMs = ALERT_MS) {
    this.#load = load;
    this.#alertMs = alertMs;
  }

  /** The next daemon, which may still be loading. */
  take(): Life {
    return this.#lives.shift() ?? this.#load();
  }

  /** Has as many as the times call for. */
  fill(): void {
    const wanted = this.#alert === undefined ? USUALLY : ON_ALERT;
    while (this.#lives.length < wanted) this.#add();
    // Whoever uses a disk would wait longer for one that still loads than this holds them up.
    if (this.#alert !== undefined) this.#lives[0]?.hurryUp();
  }

  #add(): Life {
    const life = this.#load();
    this.#lives.push(life);
    void life.over.then(() => {
      const index = this.#lives.indexOf(life);
      if (index !== -1) this.#lives.splice(index, 1);
    });
    return life;
  }

  /** A daemon died. */
  alert(): void {
    clearTimeout(this.#alert);
    this.#alert = setTimeout(() => {
      this.#alert = undefined;
      void this.#discard(USUALLY);
    }, this.#alertMs);
  }

  /**
   * One with the program as it is now. It takes the place of those that are there once it is
   * loaded: if the program cannot be, they are all that can go on after a death. Until then it is
   * one of them, so that a `discard` meanwhile ends it, too.
   */
  async renew(): Promise<Life> {
    const life = this.#add();
    const isWarm = await life.warm;
    const before = this.#lives.indexOf(life);
    if (isWarm && before > 0) await end(this.#lives.splice(0, before));
    return life;
  }

  /** Ends all of them, and with them what they have open. */
  async discard(): Promise<void> {
    clearTimeout(this.#alert);
    this.#alert = undefined;
    await this.#discard(0);
  }

  async #discard(from: number): Promise<void> {
    await end(this.#lives.splice(from));
  }
}

async function end(lives: readonly Waiting[]): Promise<void> {
  await Promise.all(lives.map((life) => life.discard()));
}
