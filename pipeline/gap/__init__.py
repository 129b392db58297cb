"""From holdout accuracy to the score on Kaggle.

corruptions, corruption_fit    the known corruptions, and which of them explains the test images
estimators, forecast           the methods, the predicted score and its interval
shift                          label shift, confidence, features, near duplicates
diagnosis                      the verdict and its evidence
prediction                     predict, diagnose, try mitigations: the core of stage 4 (needs torch)
assessment                     the prediction, score and cause of one CSV
advice                         what to do, ranked, as commands
"""
