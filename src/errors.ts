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
  | 'device-lost'
  | 'checkpoint-corrupt'
  | 'checkpoint-keys'
  | 'checkpoint-write'
  | 'resume-mismatch'
  | 'unsupported-model'
  | 'sequence-too-long'
  | 'label-out-of-range'
  | 'unknown-task'
  | 'data-row'
  | 'data-entry'
  | 'file-not-found'
  | 'image-unreadable'
  | 'image-worker'
  | 'loss-not-finite'
  | 'gradient-not-finite'
  | 'step-partly-applied'
  | 'interrupted'
  | 'download-failed'
  | 'hub-access'
  | 'hub-not-found'
  | 'checksum-mismatch'
  | 'offline'
  | 'unsafe-file-name'
  | 'parquet-corrupt'
  | 'memory-budget'
  | 'study-changed'
  | 'study-file'
  | 'study-run';

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

/**
 * A device has not the memory for a tensor, or cannot hold one of that size at all. The engine stays usable: free tensors, or make the batch smaller. Where
 * the device found out by itself, what was computed since the last `read` may be lost, but no weight was updated from lost values.
 */
export class OutOfMemoryError extends SlimFitError {
  constructor(
    message: string,
    /** Bytes of the tensor that did not fit; NaN where the device does not say. */
    readonly bytes: number,
    options?: ErrorOptions,
  ) {
    super('out-of-memory', message, options);
  }
}

/** The driver took the device away (a reset, a crash, a laptop's GPU switched off): every tensor of the engine is gone. Start a new engine and load the last checkpoint. */
export class DeviceLostError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('device-lost', message, options);
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

/** A checkpoint cannot be written: the disk is full, or the folder refuses. Nothing was changed, older checkpoints are as they were, and the trainer can go on. */
export class CheckpointWriteError extends SlimFitError {
  constructor(
    message: string,
    /** The folder that was to be written. */
    readonly path: string,
    /** About how many bytes it needs. */
    readonly neededBytes: number,
    options?: ErrorOptions,
  ) {
    super('checkpoint-write', message, options);
  }
}

/** A checkpoint is of a run with other settings, model or data than the one that is to go on from it. Nothing was changed. */
export class ResumeMismatchError extends SlimFitError {
  constructor(
    message: string,
    /** What differs: an option of the trainer ('seed', 'batchSize', 'optimizer.eps'), a field of the model's config.json ('model.hidden_size'), or 'train'. */
    readonly field: string,
    /** What it was, as text. */
    readonly stored: string,
    /** What it is now, as text. */
    readonly given: string,
  ) {
    super('resume-mismatch', message);
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

/** An entry of a JSON data file that cannot be used: file, entry (article, paragraph, question) and reason. */
export class DataEntryError extends SlimFitError {
  constructor(
    readonly file: string,
    readonly entry: string,
    readonly reason: string,
    options?: ErrorOptions,
  ) {
    super('data-entry', `${file}: ${entry}: ${reason}`, options);
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

/** A gradient held a NaN, an infinity, or a value whose square overflows. The step was not applied. */
export class GradientNotFiniteError extends SlimFitError {
  constructor(
    message: string,
    /** Names of the parameters whose gradients they are. */
    readonly parameters: readonly string[],
  ) {
    super('gradient-not-finite', message);
  }
}

/**
 * A step failed in the middle of its updates (out of memory, say): some weights and moments are those after it, others those before. `cause` is what failed. The trainer takes no further step and saves nothing
 * until `rewind` has taken it back; a checkpoint on the disk is whole.
 */
export class StepPartlyAppliedError extends SlimFitError {
  constructor(
    message: string,
    /** Number of the step. */
    readonly step: number,
    /** Names of the parameters that were updated, in that order; one more may have been. */
    readonly updated: readonly string[],
    options?: ErrorOptions,
  ) {
    super('step-partly-applied', message, options);
  }
}

/** Training was stopped by an abort signal or the kernel's interrupt, at a step boundary, or a download was; the state is consistent. */
export class InterruptedError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('interrupted', message, options);
  }
}

/**
 * A download failed for good: no connection, an answer cut or stalled too often, a server in trouble (429, 5xx), or an answer that is none of a hub. What has come is kept and
 * the next call goes on from there. The text never holds a token.
 */
export class DownloadError extends SlimFitError {
  /**
   * @param url without its query, which may be a signature
   * @param bytes how much of the file is on the disk
   * @param status HTTP status of the last answer, if there was one
   */
  constructor(
    message: string,
    readonly url: string,
    readonly bytes: number = 0,
    readonly status?: number,
    options?: ErrorOptions,
  ) {
    super('download-failed', message, options);
  }
}

/** The hub refused (401, 403): the repository is private or gated, or does not exist and the hub does not say so. */
export class HubAccessError extends SlimFitError {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super('hub-access', message);
  }
}

/** The hub has no such repository, revision, configuration or file. */
export class HubNotFoundError extends SlimFitError {
  constructor(
    message: string,
    readonly what: 'repository' | 'revision' | 'configuration' | 'split' | 'file',
  ) {
    super('hub-not-found', message);
  }
}

/** A file's contents are not those that the hub's listing names by their hash. The file was removed. */
export class ChecksumError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('checksum-mismatch', message, options);
  }
}

/** Offline mode, and the cache does not hold what was asked for. */
export class OfflineError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('offline', message, options);
  }
}

/** A name from a server or an index that would lead out of its folder, or that some system cannot store. Nothing was written. */
export class UnsafeFileNameError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('unsafe-file-name', message, options);
  }
}

/** A Parquet file is damaged, or holds what cannot be read. */
export class ParquetError extends SlimFitError {
  constructor(message: string, options?: ErrorOptions) {
    super('parquet-corrupt', message, options);
  }
}

/** No plan that was tried fits in a memory budget. */
export class MemoryBudgetError extends SlimFitError {
  constructor(
    message: string,
    /** Bytes of the smallest plan that was tried. */
    readonly neededBytes: number,
    options?: ErrorOptions,
  ) {
    super('memory-budget', message, options);
  }
}

/** A folder holds results of a study whose task, settings or steps are others. Nothing was changed. */
export class StudyChangedError extends SlimFitError {
  constructor(
    message: string,
    /** What differs: 'trainer.learningRate: 0.001 → 0.0005', … */
    readonly changes: readonly string[],
  ) {
    super('study-changed', message);
  }
}

/** The definition of a study cannot be read. Nothing was changed. */
export class StudyFileError extends SlimFitError {
  constructor(
    readonly file: string,
    readonly reason: string,
    options?: ErrorOptions,
  ) {
    super('study-file', `${file}: ${reason}`, options);
  }
}

/** Runs of a study failed; those that did not are kept. `cause` is the error of the first. */
export class StudyRunError extends SlimFitError {
  constructor(
    message: string,
    /** The runs that failed, in words, and why. */
    readonly failures: readonly { readonly run: string; readonly reason: string }[],
    options?: ErrorOptions,
  ) {
    super('study-run', message, options);
  }
}
