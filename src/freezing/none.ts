/** Full fine-tuning as a policy: nothing is ever frozen. The yardstick for every other one. */
import { TrackingPolicy } from './tracking';

/** Freezes nothing; still records how far each layer moved. */
export class NoFreezing extends TrackingPolicy {
  readonly name = 'none';
  readonly label = 'full fine-tuning';

  select(): readonly number[] {
    return [];
  }
}
