/** A process of its own that downloads a model, for the tests that kill it or run two at once. Arguments: endpoint, cache, repository. */
import { hub } from '../../src/hub/hub';

const [endpoint, cacheDir, repo] = process.argv.slice(2);
void hub(repo, { endpoint, cacheDir, token: false, offline: false, progress: false }).then((folder) => process.stdout.write(folder));
