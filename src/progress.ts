/** A text progress bar with rate and time left: one line that is redrawn in a terminal, a line now and then in a log. */

/** How often a log gets a line, and a terminal is redrawn, in milliseconds. */
const LOG_MS = 5000;
const TERMINAL_MS = 100;

/** Seconds as 1:05 or 1:02:03. */
export function formatDuration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  const two = (n: number) => String(n).padStart(2, '0');
  const minutes = Math.floor(s / 60);
  return minutes < 60 ? `${minutes}:${two(s % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(s % 60)}`;
}

/** Where the bar is drawn. */
export interface ProgressOutput {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/** The progress of one long piece of work. */
export class ProgressLine {
  private readonly started: number;
  private drawn = -Infinity;
  private done = 0;
  private note = '';

  /** @param total number of turns; `now` in milliseconds; `amount` writes turns another way, such as bytes: their rate is then always given a second */
  constructor(
    private readonly label: string,
    private readonly total: number,
    private readonly output: ProgressOutput = process.stderr,
    private readonly now: () => number = () => performance.now(),
    private readonly amount?: (n: number) => string,
  ) {
    this.started = now();
  }

  /** Tells how many turns are done. */
  update(done: number, note = ''): void {
    this.done = done;
    this.note = note;
    if (this.now() - this.drawn >= (this.output.isTTY ? TERMINAL_MS : LOG_MS)) this.draw();
  }

  /** Draws the last state and ends the line. */
  end(): void {
    this.draw();
    if (this.output.isTTY) this.output.write('\n');
  }

  /** The line as it stands. */
  get text(): string {
    const seconds = (this.now() - this.started) / 1000;
    const share = this.total > 0 ? Math.min(1, this.done / this.total) : 1;
    const rate = seconds > 0 ? this.done / seconds : 0;
    const left = rate > 0 ? (this.total - this.done) / rate : NaN;
    const filled = Math.round(share * 24);
    const time = this.done >= this.total ? `in ${formatDuration(seconds)}` : Number.isNaN(left) ? '' : `${formatDuration(left)} left`;
    const speed = rate === 0 ? '' : this.amount ? `${this.amount(Math.round(rate))}/s` : rate >= 1 ? `${rate.toFixed(1)}/s` : `${(1 / rate).toFixed(1)} s each`;
    const count = this.amount ? `${this.amount(this.done)}/${this.amount(this.total)}` : `${this.done}/${this.total}`;
    return [`${this.label} ${'█'.repeat(filled)}${'░'.repeat(24 - filled)} ${count}`, speed, time, this.note].filter(Boolean).join('  ');
  }

  private draw(): void {
    this.drawn = this.now();
    this.output.write(this.output.isTTY ? `\r\x1b[2K${this.text}` : `${this.text}\n`);
  }
}
