// Classifies texts and pictures with a release of tfapp on Android, and checks itself against golden.json.
// Not run where tfapp is developed; see README.md. Needs API level 24 and, of MediaPipe Tasks,
// com.google.mediapipe:tasks-text for texts or com.google.mediapipe:tasks-vision for pictures.

package org.example.tfapp

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.icu.text.Normalizer2
import android.util.Base64
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.components.containers.ClassificationResult
import com.google.mediapipe.tasks.text.textclassifier.TextClassifier
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier
import java.security.MessageDigest
import kotlin.math.abs
import org.json.JSONArray
import org.json.JSONObject

/** What a text needs before MediaPipe tokenizes it, when golden.json says `lowercase`. */
fun prepared(text: String): String {
    val folded = Normalizer2.getNFKCCasefoldInstance().normalize(text)
    val kept = StringBuilder()
    Normalizer2.getNFDInstance().normalize(folded).codePoints().forEach { letter ->
        when (Character.getType(letter).toByte()) {
            Character.CONTROL,
            Character.SPACE_SEPARATOR,
            Character.LINE_SEPARATOR,
            Character.PARAGRAPH_SEPARATOR -> kept.append(' ')
            Character.NON_SPACING_MARK, Character.FORMAT -> Unit
            else -> kept.appendCodePoint(letter)
        }
    }
    return kept.toString()
}

/** The probability of each class by its name, which MediaPipe reads from the file. */
fun scores(result: ClassificationResult): Map<String, Float> =
    result.classifications()[0].categories().associate { it.categoryName() to it.score() }

/** An example of use: the most probable class of a text. */
fun topic(classifier: TextClassifier, text: String): String? =
    scores(classifier.classify(prepared(text)).classificationResult()).maxByOrNull { it.value }?.key

/** Compares the answers of a file among the assets with golden.json, and throws at the first wrong one. */
fun checkRelease(context: Context, variant: String = "dynamic"): Int {
    val golden = JSONObject(context.assets.open("golden.json").bufferedReader().readText())
    val inputs = golden.getJSONArray("inputs")
    val recorded = golden.getJSONObject("answers").optJSONArray(variant)
    val tolerance = golden.getJSONObject("tolerance").getDouble(variant)
    val model = "model-$variant.tflite"

    fun compare(row: Int, found: Map<String, Float>) {
        val expected: JSONArray =
            recorded?.getJSONArray(row) ?: inputs.getJSONObject(row).getJSONArray("probabilities")
        val classes = golden.getJSONArray("classes")
        for (number in 0 until classes.length()) {
            val gap = abs(found.getValue(classes.getString(number)) - expected.getDouble(number))
            check(gap <= tolerance) { "golden vector $row differs by $gap, more than $tolerance" }
        }
    }

    var compared = 0
    if (golden.getString("feature") == "text") {
        check(golden.getJSONObject("preprocessor").getBoolean("lowercase")) {
            "MediaPipe lower-cases every text, and this model tells cases apart: tokenize in the app"
        }
        TextClassifier.createFromFile(context, model).use { classifier ->
            for (row in 0 until inputs.length()) {
                val input = inputs.getJSONObject(row)
                if (input.getJSONArray("token_ids").length() > 1) continue // more windows than one
                val text = prepared(input.getString("text"))
                compare(row, scores(classifier.classify(text).classificationResult()))
                compared++
            }
        }
    } else {
        ImageClassifier.createFromFile(context, model).use { classifier ->
            for (row in 0 until inputs.length()) {
                val input = inputs.getJSONObject(row)
                val bitmap = decoded(Base64.decode(input.getString("image_bytes"), Base64.DEFAULT))
                if (bitmap == null || checksum(bitmap) != input.getString("pixels_sha256")) continue
                val image = BitmapImageBuilder(bitmap).build()
                compare(row, scores(classifier.classify(image).classificationResult()))
                compared++
            }
        }
    }
    check(compared > 0) { "no golden vector could be compared" }
    return compared
}

private fun decoded(content: ByteArray): Bitmap? {
    val options = BitmapFactory.Options().apply { inPreferredConfig = Bitmap.Config.ARGB_8888 }
    return BitmapFactory.decodeByteArray(content, 0, content.size, options)
}

private fun checksum(bitmap: Bitmap): String {
    val colours = IntArray(bitmap.width * bitmap.height)
    bitmap.getPixels(colours, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
    val bytes = ByteArray(3 * colours.size)
    colours.forEachIndexed { place, colour ->
        bytes[3 * place] = (colour shr 16).toByte()
        bytes[3 * place + 1] = (colour shr 8).toByte()
        bytes[3 * place + 2] = colour.toByte()
    }
    return MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
}
