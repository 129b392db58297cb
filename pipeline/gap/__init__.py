"""From holdout accuracy to the score on Kaggle.

corruptions, corruption_fit    the known corruptions, and which of them explains the test images
mixture                        the same where each image has a corruption of its own
estimators, forecast           the methods, the predicted score and its interval
shift                          label shift, confidence, features, near duplicates
diagnosis                      the verdict and its evidence
adapt                          mitigations, tried on holdout images and applied (needs torch)
prediction                     predict, diagnose, mitigate: the core of stage 4
assessment                     the prediction, score and cause of one CSV
advice                         what to do, ranked, as commands
"""
