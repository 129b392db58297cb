"""The training engine and inference.  Each module imports only those above it.

augment      Cutout, Mixup and CutMix, for whole batches
batches      images on the device, an epoch's random numbers, the validation split
device       device, precision, compilation, processes: all by rule
optim        optimizers, learning rate, EMA
inference    evaluation, test-time augmentation, batch-norm adaptation, several models, teachers
state        the training state and its checkpoint
step         one step; distillation
loop         epochs, validation, Ctrl-C, progress, TensorBoard
session      one run from its card to its weights; resumes
"""
