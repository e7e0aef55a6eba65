/** Everything that a step changes, copied to the host: weights, moments, policy, place in the data. Random streams are functions of seed and step. */
import type { Engine } from '../engine/engine';
import type { FreezePolicy, PolicyState } from '../freezing/policy';
import type { AdamW, AdamWSnapshot } from '../optim/adamw';
import type { Parameter } from '../tape/parameter';
import type { LossScaleState } from './lossScale';

/** What changes in training. */
export interface Trained {
  readonly engine: Engine;
  readonly parameters: ReadonlyMap<string, Parameter>;
  readonly optimizer: AdamW;
  readonly policy: FreezePolicy;
}

/** The state before one step. */
export interface TrainingSnapshot {
  /** Number of the step that comes next. */
  readonly step: number;
  /** Steps in the history. */
  readonly recorded: number;
  readonly weights: ReadonlyMap<string, Float32Array>;
  readonly moments: AdamWSnapshot;
  readonly policy: PolicyState;
  /** Layers that the user froze (true) or thawed (false), over the policy's head. */
  readonly overruled: ReadonlyMap<number, boolean>;
  /** What the schedule's learning rate is multiplied by. */
  readonly rateFactor: number;
  /** Of a dynamic loss scale. */
  readonly lossScale: LossScaleState | undefined;
}

/** Copies the state to the host. */
export async function takeSnapshot(of: Trained, place: Pick<TrainingSnapshot, 'step' | 'recorded' | 'overruled' | 'rateFactor' | 'lossScale'>): Promise<TrainingSnapshot> {
  const weights = new Map<string, Float32Array>();
  for (const p of of.parameters.values()) weights.set(p.name, (await of.engine.read(p.data)) as Float32Array);
  return { ...place, overruled: new Map(place.overruled), weights, moments: await of.optimizer.snapshot(), policy: of.policy.state() };
}

/** Writes a snapshot back, to the bit. */
export function restoreSnapshot(of: Trained, snapshot: TrainingSnapshot): void {
  for (const [name, values] of snapshot.weights) of.engine.write(of.parameters.get(name)!.data, values);
  of.optimizer.restore(snapshot.moments);
  of.policy.restore(snapshot.policy);
}
