"""From local accuracy to the score on Kaggle.

examination       asks for the hidden images, diagnoses them, applies a measure: what predict calls
diagnosis         the verdict and its grounds, from damage, shift and duplicates
damage            which corruption or mistake explains the pixels; corruptions, image_statistics
shift             classes, difficulty and foreignness, from answers and features
closing           measures against a shift, tried on labelled images
judgement         a CSV's evidence put together: what check calls
forecast          the prediction and its interval, from estimators and calibration
advice, findings  what to do next; all that check says; pictures, contact_sheets, lettering
ledger, join      every submission and prediction; Kaggle's list
"""
