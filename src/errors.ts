/**
 * The errors that SlimFit throws. Each names the offending value and says what to do; `code` is stable, so that a program can
 * tell them apart without reading the text.
 */

/** What went wrong, for programs. */
export type SlimFitErrorCode =
  | 'invalid-argument'
  | 'shape-mismatch'
  | 'use-after-free'
  | 'engine-unavailable'
  | 'out-of-memory'
  | 'checkpoint-corrupt'
  | 'checkpoint-keys'
  | 'unsupported-model'
  | 'sequence-too-long'
  | 'label-out-of-range'
  | 'unknown-task'
  | 'data-row'
  | 'file-not-found'
  | 'image-unreadable'
  | 'image-worker'
  | 'loss-not-finite'
  | 'interrupted';

/** Base of every error that SlimFit throws on purpose. */
export class SlimFitError extends Error {
  constructor(
    readonly code: SlimFitErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** An argument that can never work: a freeze rate outside [0, 1), a batch of 0, an unknown name. */
export class InvalidArgumentError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('invalid-argument', message, options);
  }
}

/** Two shapes that do not fit, or a tensor in a file that is not of the model's shape. */
export class ShapeError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('shape-mismatch', message, options);
  }
}

/** A device tensor was used after it was freed: a bug of the caller. */
export class UseAfterFreeError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('use-after-free', message, options);
  }
}

/** The engine that was asked for does not run on this machine. */
export class EngineUnavailableError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('engine-unavailable', message, options);
  }
}

/** A checkpoint file is truncated, malformed or lies about its size. Nothing was loaded. */
export class CheckpointError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('checkpoint-corrupt', message, options);
  }
}

/** The parameter names of a checkpoint are not those of the model. Nothing was loaded. */
export class CheckpointKeysError extends SlimFitError {
  constructor(
    message: string,
    readonly missing: readonly string[],
    readonly unexpected: readonly string[],
  ) {
    super('checkpoint-keys', message);
  }
}

/** `config.json` describes a model that SlimFit cannot build. */
export class UnsupportedModelError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('unsupported-model', message, options);
  }
}

/** More tokens than the model has positions. */
export class SequenceTooLongError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('sequence-too-long', message, options);
  }
}

/** A class index outside [0, numLabels), or a label of the wrong kind. */
export class LabelError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('label-out-of-range', message, options);
  }
}

/** A task name that is not one of GLUE's or ours. */
export class UnknownTaskError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('unknown-task', message, options);
  }
}

/** A row of a data file that cannot be read: file, line (from 1) and reason. */
export class DataRowError extends SlimFitError {
  constructor(
    readonly file: string,
    readonly line: number,
    readonly reason: string,
  ) {
    super('data-row', `${file}:${line}: ${reason}`);
  }
}

/** A file or folder that should be there is not. */
export class FileMissingError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('file-not-found', message, options);
  }
}

/** An image that cannot be decoded: broken, truncated, empty, too large or no image at all. */
export class ImageDecodeError extends SlimFitError {
  constructor(
    /** The file, or the row that holds the image. */
    readonly file: string,
    readonly reason: string,
    options?: ErrorOptions,
  ) {
    super('image-unreadable', `${file}: ${reason}`, options);
  }
}

/** A thread that decodes images died. Its batch was not made; the next batch gets a new thread. */
export class ImageWorkerError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('image-worker', message, options);
  }
}

/** The loss of a step was NaN or infinite. The step was not applied. */
export class LossNotFiniteError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('loss-not-finite', message, options);
  }
}

/** Training was stopped by an abort signal or the kernel's interrupt, at a step boundary; the state is consistent. */
export class InterruptedError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('interrupted', message, options);
  }
}
