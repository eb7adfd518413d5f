// Classifies texts and pictures with a release of tfapp on iOS, and checks itself against golden.json.
// Not run where tfapp is developed; see README.md. Needs, of MediaPipe Tasks, the pods MediaPipeTasksText
// for texts or MediaPipeTasksVision for pictures.

import CryptoKit
import Foundation
import MediaPipeTasksText
import MediaPipeTasksVision
import UIKit

/// What a text needs before MediaPipe tokenizes it, when golden.json says `lowercase`.
func prepared(_ text: String) -> String {
    let folded = text.precomposedStringWithCompatibilityMapping.lowercased()
        .replacingOccurrences(of: "ß", with: "ss", options: .literal)
        .replacingOccurrences(of: "ς", with: "σ", options: .literal)
    var kept = String.UnicodeScalarView()
    for letter in folded.decomposedStringWithCompatibilityMapping.unicodeScalars {
        switch letter.properties.generalCategory {
        case .control, .spaceSeparator, .lineSeparator, .paragraphSeparator: kept.append(" ")
        case .nonspacingMark, .format: break
        default: kept.append(letter)
        }
    }
    return String(kept)
}

/// The probability of each class by its name, which MediaPipe reads from the file.
func scores(_ result: ClassificationResult) -> [String: Float] {
    let pairs = result.classifications[0].categories.map { ($0.categoryName ?? "", $0.score) }
    return Dictionary(uniqueKeysWithValues: pairs)
}

/// An example of use: the most probable class of a text.
func topic(of text: String, by classifier: TextClassifier) throws -> String? {
    let result = try classifier.classify(text: prepared(text)).classificationResult
    return scores(result).max { $0.value < $1.value }?.key
}

struct Golden: Decodable {
    struct Preprocessor: Decodable { let lowercase: Bool? }
    struct Input: Decodable {
        let text: String?
        let token_ids: [[Int]]?
        let image_bytes: Data?  // base64
        let pixels_sha256: String?
        let probabilities: [Float]
    }

    let feature: String
    let classes: [String]
    let preprocessor: Preprocessor
    let tolerance: [String: Float]
    let inputs: [Input]
    let answers: [String: [[Float]]]
}

struct WrongAnswer: Error { let message: String }

/// Compares the answers of a file in the bundle with golden.json, and throws at the first wrong one.
func checkRelease(in bundle: Bundle = .main, variant: String = "dynamic") throws -> Int {
    guard let model = bundle.path(forResource: "model-\(variant)", ofType: "tflite"),
        let vectors = bundle.url(forResource: "golden", withExtension: "json")
    else { throw WrongAnswer(message: "the model or golden.json is not in the bundle") }
    let golden = try JSONDecoder().decode(Golden.self, from: Data(contentsOf: vectors))
    guard let tolerance = golden.tolerance[variant] else {
        throw WrongAnswer(message: "golden.json has no tolerance for \(variant)")
    }

    func compare(_ row: Int, _ found: [String: Float]) throws {
        let expected = golden.answers[variant]?[row] ?? golden.inputs[row].probabilities
        for (name, value) in zip(golden.classes, expected) {
            let gap = abs((found[name] ?? .infinity) - value)
            if gap > tolerance { throw WrongAnswer(message: "golden vector \(row) differs by \(gap)") }
        }
    }

    var compared = 0
    if golden.feature == "text" {
        guard golden.preprocessor.lowercase == true else {
            throw WrongAnswer(message: "MediaPipe lower-cases every text: tokenize in the app")
        }
        let classifier = try TextClassifier(modelPath: model)
        for (row, input) in golden.inputs.enumerated() where input.token_ids?.count == 1 {  // one window
            let result = try classifier.classify(text: prepared(input.text ?? ""))
            try compare(row, scores(result.classificationResult))
            compared += 1
        }
    } else {
        let classifier = try ImageClassifier(modelPath: model)
        for (row, input) in golden.inputs.enumerated() {
            guard let content = input.image_bytes, let image = UIImage(data: content),
                checksum(image) == input.pixels_sha256
            else { continue }
            let result = try classifier.classify(image: MPImage(uiImage: image))
            try compare(row, scores(result.classificationResult))
            compared += 1
        }
    }
    if compared == 0 { throw WrongAnswer(message: "no golden vector could be compared") }
    return compared
}

private func checksum(_ image: UIImage) -> String? {
    guard let picture = image.cgImage, image.imageOrientation == .up else { return nil }
    var pixels = [UInt8](repeating: 0, count: 4 * picture.width * picture.height)
    let drawn = pixels.withUnsafeMutableBytes { buffer -> Bool in
        guard
            let context = CGContext(
                data: buffer.baseAddress, width: picture.width, height: picture.height,
                bitsPerComponent: 8, bytesPerRow: 4 * picture.width, space: CGColorSpaceCreateDeviceRGB(),
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        else { return false }
        context.draw(picture, in: CGRect(x: 0, y: 0, width: picture.width, height: picture.height))
        return true
    }
    guard drawn else { return nil }
    let colours = pixels.enumerated().filter { $0.offset % 4 != 3 }.map(\.element)
    return SHA256.hash(data: colours).map { String(format: "%02x", $0) }.joined()
}
