/** Everything that `slimfit` offers, by what it is for. */

// Engines: where tensors live and what computes.
export { chooseEngine, type EngineChoice } from './engine/choose';
export { engineChoice } from './inspect/engineCard';
export type { EngineReason } from './engine/order';
export type { AdapterKind, AdapterSummary, EngineOptions } from './engine/webgpu/adapters';
export { CATEGORIES, FIXED_POINT, ROW_SCALED } from './engine/engine';
export type {
  AdamWOptions,
  AdamWState,
  AttentionGradients,
  AttentionOperand,
  AttentionSettings,
  Category,
  CodeEncoding,
  DeviceTensor,
  DType,
  EncodedTensor,
  Engine,
  EngineName,
  FixedPoint,
  HeldMemory,
  LossResult,
  MatmulOptions,
  MemoryReport,
  NormalizedCodes,
  Precision,
  RandomKey,
  RowScaled,
  RowStats,
  SparseTensor,
  UpdateMagnitude,
} from './engine/engine';

// Models.
export { AutoModelForImageClassification, AutoModelForQuestionAnswering, AutoModelForSequenceClassification } from './models/auto';
export { BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification, maskedLmSpecs } from './models/bert';
export { DistilBertForQuestionAnswering, DistilBertForSequenceClassification } from './models/distilbert';
export { RobertaForQuestionAnswering, RobertaForSequenceClassification } from './models/roberta';
export { QuestionAnsweringModel, questionAnsweringSpecs } from './models/questionAnswering';
export { SequenceClassificationModel, sequenceClassificationSpecs } from './models/sequenceClassification';
export { TextModel } from './models/textModel';
export type { FromPretrainedOptions, SavesItself, TextModelClass } from './models/pretrained';
export { imageClassificationSpecs, ViTForImageClassification, type ViTFromPretrainedOptions } from './models/vit';
export { initialWeights, Model } from './models/model';
export type { ActivationPlan, BatchShape, BatchSource, HostWeights, ImageBatch, LabelledBatch, ModelOutput, ParameterSpec, Predictions, TextBatch } from './models/model';
export { defaultLabels } from './hub/configFields';
export { parseBertConfig, parseDistilBertConfig, parseRobertaConfig, parseTextConfig, serializeTextConfig, TEXT_MODEL_TYPES } from './hub/config';
export type { BertConfig, DistilBertConfig, RobertaConfig, TextConfig } from './hub/config';
export { parseViTConfig, serializeViTConfig, vitTokens, type ViTConfig } from './hub/vitConfig';
export { readSafetensors, writeSafetensors, type StoredTensor } from './hub/safetensors';

// Where data and checkpoints come from.
export { hub, type HubModelOptions } from './hub/hub';
export { dataset, DATASET_ALIASES, HubDataset, type DatasetOptions } from './hub/dataset';
export { readParquetFile, readParquetInfo, type ParquetInfo, type ParquetReadOptions, type ParquetRow, type ParquetValue } from './hub/parquet';
export type { HubOptions, RetryOptions } from './hub/settings';

// Freezing.
export type { FreezableLayer, LayerKind } from './freezing/layer';
export type { FreezePolicy, KeptBytes, PolicyFactory, PolicyRun, PolicyState, StepObservation } from './freezing/policy';
export { TrackingPolicy } from './freezing/tracking';
export { InterLayerScheduling, selectFrozen, type IlsOptions } from './freezing/ils';
export { NoFreezing } from './freezing/none';
export { RandomLayers, type RandomLayersOptions } from './freezing/randomLayers';
export { BlockCyclic, type BlockCyclicOptions, type SwitchMode } from './freezing/blockCyclic';
export { FreezeOut, type FreezeOutOptions } from './freezing/freezeOut';
export { AutoFreeze, type AutoFreezeOptions } from './freezing/autoFreeze';
export { BitFit, type BitFitOptions } from './freezing/bitFit';
export { CkaFreezing, linearCka, type CkaFreezingOptions } from './freezing/ckaFreezing';
export { MemoryBudget, type MemoryBudgetOptions } from './freezing/memoryBudget';
export { KnapsackFreezing, type KnapsackFreezingOptions } from './freezing/knapsackFreezing';
export { groupsOf, type Granularity, type LayerGroup } from './freezing/blocks';
export type { BudgetOptions } from './freezing/budget';
export { policyOf, POLICIES, POLICY_NAMES, type PolicyEntry, type PolicyName, type PolicyOptions, type RandomPolicyOptions } from './freezing/policies';

// Training.
export { evaluate, predict, SlimFitTrainer } from './training/trainer';
export type { Evaluation, StepOptions, StepPreview, TrainerOptions } from './training/trainer';
export { fromRecipe, type FromRecipeOptions, type RecipeRun } from './training/fromRecipe';
export { recipeNamed, RECIPES, recipes, type AugmentationName, type GlueRecipe, type ImageRecipe, type Recipe, type SquadRecipe } from './training/recipes';
export { planRecipe, type RecipePlan, type RecipePlanOptions } from './training/recipePlan';
export type { CheckpointOptions } from './training/checkpoints';
export { listCheckpoints, type CheckpointManifest, type StoredCheckpoint } from './training/checkpointFolder';
export type { LossScaling } from './training/lossScale';
export type { StepRecord } from './training/stepRecord';
export { loadStudy, study, type StudyOptions, type StudyProgress, type StudyRunOptions } from './training/study';
export type {
  NamedStudyPolicy,
  OwnStudyPolicy,
  OwnStudyTask,
  RecipeStudyTask,
  StudyDefinition,
  StudyJob,
  StudyParts,
  StudyPolicy,
  StudyPolicyRun,
  StudySeed,
  StudySettings,
  StudyTask,
} from './training/studyDefinition';
export type { StudyResult } from './training/studyFolder';
export { GradientComparison, type GradientError } from './training/gradients';
export { History, type HistoryHead, type HistoryParts, type StepField, type StoredHistory } from './training/history';
export type { ColumnValues, StoredColumn } from './training/columns';
export { AdamW, type AdamWSettings, type AdamWSnapshot, type AdamWParameterSnapshot, type CodedMomentValues } from './optim/adamw';
export { constantSchedule, linearSchedule, paperSchedule, type PaperSchedule, type Schedule } from './optim/schedules';
export { Random } from './random';

// Activations: what is kept for backward, and why.
export { ForwardContext, type ForwardOptions } from './nn/context';
export { TUNED_BLOCK_BYTES } from './nn/blocks';
export { ActivationLedger } from './tape/ledger';
export { Parameter } from './tape/parameter';
export { Tape, type Backward, type GradientSink, type Kept, type KeptEncoded, type KeptPieces, type KeptSparse, type KeepReason, type TapeOptions, type Variable } from './tape/tape';
export type { EncodingError } from './tape/encodingError';
export type { ActivationEncoding, ActivationRole, CoursePoint, LedgerEntry } from './tape/roles';
export { SCHEMES, schemeOf, type ActivationMode, type ActivationScheme } from './tape/scheme';
export type { PlannedActivation, TrainingSet } from './memory/keptActivations';
export { planMemory, type MemoryPlan, type MemoryQuery } from './memory/planner';
export { fitMemory, memoryLevers, type FitQuery, type MemoryChanges, type MemoryFit, type MemoryLever } from './memory/fit';
export type { Kernels } from './engine/shapeEngine';
export { vitActivations, vitActivationBytes, type ViTActivationBytesQuery } from './memory/vitActivationBytes';
export { bertActivations, bertActivationBytes, type ActivationBytes, type ActivationBytesQuery, type ActivationPrediction } from './memory/activationBytes';

// Data.
export { Tokenizer, type EncodeOptions, type Encoding, type TokenOffsets, type VocabularyOptions } from './data/tokenizer';
export type { TemplatePart } from './data/template';
export { TextDataset, type TextDatasetOptions } from './data/textDataset';
export { MaskedLmDataset } from './data/maskedLm';
export { GLUE_TASKS, glueTask, loadGlue, readGlueFile, type Example, type GlueData, type GlueTask, type UnlabelledExample } from './data/glue';
export { glueSubmission, readGlueTest, writeGlueSubmission, type GlueTest } from './data/glueSubmission';
export { readSquad, squadExamples, type SquadAnswer, type SquadExample } from './data/squad';
export { SquadDataset, type SquadDatasetOptions, type SquadFeature } from './data/squadDataset';
export { squadPredictions, writeSquadPredictions, type SquadCandidate, type SquadPrediction, type SquadPredictionOptions, type SquadPredictions } from './data/squadPredictions';
export { evaluateSquad, normalizeAnswer, type SquadEvaluation, type SquadEvaluationOptions } from './data/squadEvaluation';
export { ImageDataset, type ImageDatasetOptions } from './data/imageDataset';
export { IMAGENET_MEAN, IMAGENET_STD, parseImageProcessor, readImageProcessor, VIT_TRANSFORM, writeImageProcessor, type ImageTransform } from './data/imageProcessor';
export { ImageRows, type ImageRow, type ImageRowOptions, type ImageSource } from './data/imageSource';
export { Cifar, readCifar10, readCifar100 } from './data/cifar';
export { ImageFolder, type BrokenImage } from './data/imageFolder';
export { cifarAugmentation, imagenetAugmentation, randomResizedCrop, type Augmentation } from './data/pixels/augmentation';
export type { StoredImage } from './data/pixels/decode';
export type { Resampling } from './data/pixels/resample';
export type { CropBox, ImageSize, Rgb, RgbImage } from './data/pixels/rgbImage';
export { accuracy, argmaxRows, f1, matthewsCorrelation, pearson, spearman } from './data/metrics';
export { generateAcceptability, generateText } from './data/embedded/grammar';
export { embeddedModel } from './data/embedded/embedded';

// Looking at a run.
export { display, runningKernel, type DisplayOptions, type Formatter, type KernelApi, type MimeBundle } from './inspect/kernelApi';
export { Figure, type FigureSpec } from './inspect/figure';
export { type Run } from './inspect/axes';
export { updateMagnitudeByKindFigure, updateMagnitudeDistributionFigure, updateMagnitudeFigure } from './inspect/magnitudeFigures';
export { freezeMapFigure, freezingSavesFigure, timesTrainedFigure } from './inspect/freezeFigures';
export { activationMemoryFigure, activationMemoryOverStepsFigure, deviceMemoryFigure, stepMemoryFigure, type RunOrPlan } from './inspect/memoryFigures';
export { encodingErrorFigure, gradientErrorFigure } from './inspect/healthFigures';
export { lossFigure, metricsFigure, throughputFigure } from './inspect/runFigures';
export { activationsTable, deviceMemoryTable, encodingErrorsTable, healthTable } from './inspect/tables';
export { compare, RunComparison } from './inspect/compare';
export { studyFigure, type StudyMemory } from './inspect/studyFigure';
export { StudyResults, studyRunsTable, studyTable, type StudyRun } from './inspect/studyResults';
export { formatBytes } from './units';
export { modelPart, shortLayerName } from './inspect/layerNames';
export { Summary } from './inspect/summary';
export type { Trace } from './inspect/staticSvg';
export { loadHistory, saveHistory } from './training/historyFile';
export { ProgressLine, type ProgressOutput } from './progress';

// Errors.
export * from './errors';
