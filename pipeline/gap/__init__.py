"""From holdout accuracy to the score on Kaggle.

corruptions, corruption_fit    what may happen to images, and what did, by statistics of their pixels
mixture                        the same, if each image has a corruption of its own
estimators, forecast           the score without labels: the methods, the prediction and its interval
shift                          label shift, confidence, features, near duplicates
diagnosis                      the verdict and its grounds, from corruption_fit and shift; how they are stored
adapt                          mitigations of a shift, tried on labelled images, and applied (needs torch)
prediction                     the hidden images predicted, diagnosed, and predicted again: what predict calls
assessment                     a CSV's evidence put together: the prediction, the score, the cause
advice                         what to do, ranked, as commands: what predict, check and report show
"""
