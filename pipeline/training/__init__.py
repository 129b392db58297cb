"""The training engine: device, batches, augmentation, the loop, checkpoints; and the networks' answers.

session        one run from its card to its weights; resumes
engine         the loop over epochs and steps
step           one step: loss, gradients, optimizer; on CUDA as a graph
state          what changes while training, and is saved
checkpoint     the state on disk
batches        images on the device, random crops and flips
augmentations  Cutout, RandomErasing; policies and operations: RandAugment, TrivialAugment
mixing         Mixup, CutMix, RICAP
optimizers     Adam, AdamW, SGD, RMSprop
schedule       the learning rate
averages       the moving average of the weights
teachers       distillation from finished runs
processes      several processes that train one network
calibration    precision and compilation, measured at the start
split          which images train and which validate
evaluation     loss and accuracy on a set
inference      labels from one network or several; views: test-time augmentation
metrics        metrics.jsonl and TensorBoard
progress       what the user sees
interrupts     Ctrl-C and SIGTERM
device         where it runs
"""
