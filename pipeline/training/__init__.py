"""The training engine: device, batches, augmentation, the loop, checkpoints.

session       one run from its card to its weights; resumes
engine        the loop over epochs and steps
state         what changes while training, and is saved
checkpoint    the state on disk
batches       images on the device, random crops and flips
split         which images train and which validate
schedule      the learning rate
evaluation    loss and accuracy on a set
metrics       metrics.jsonl and TensorBoard
progress      what the user sees
interrupts    Ctrl-C and SIGTERM
device        where it runs, and how precisely
"""
